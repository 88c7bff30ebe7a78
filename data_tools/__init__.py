"""Makes, converts, checks and looks at data sets: ``python -m data_tools VERB``, also as ``sparsegen data VERB``."""
