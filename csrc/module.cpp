// The Python module sparsegen.kernels._native: one function per kernel, bound by its C++ signature.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cstring>
#include <new>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels.hpp"

namespace {

using namespace sparsegen;

#if defined(__x86_64__)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

struct Level {
    const char* name;
    const Kernels* kernels;
    bool (*supported)();
};

// Best last.
const Level kLevels[] = {
    {"portable", &portable::kernels, [] { return true; }},
#ifdef SPARSEGEN_HAS_AVX2
    {"avx2", &avx2::kernels, has_avx2},
#endif
#ifdef SPARSEGEN_HAS_AVX512
    {"avx512", &avx512::kernels, has_avx512},
#endif
};

const Level* active = &kLevels[0];

// Python number to C++ argument; pointers travel as integers, 0 is null.
template <typename T>
bool convert(PyObject* object, T& value) {
    if constexpr (std::is_pointer_v<T>) {
        value = reinterpret_cast<T>(PyLong_AsVoidPtr(object));
    } else if constexpr (std::is_floating_point_v<T>) {
        value = static_cast<T>(PyFloat_AsDouble(object));
    } else {
        value = static_cast<T>(PyLong_AsLongLong(object));
    }
    return PyErr_Occurred() == nullptr;
}

template <typename R, typename... Args, std::size_t... I>
PyObject* call(R (*kernel)(Args...), PyObject* const* objects, Py_ssize_t count, std::index_sequence<I...>) {
    if (count != static_cast<Py_ssize_t>(sizeof...(Args))) {
        return PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", sizeof...(Args), count);
    }
    std::tuple<Args...> values;
    if (!(convert(objects[I], std::get<I>(values)) && ...)) return nullptr;
    PyThreadState* state = PyEval_SaveThread();
    try {
        if constexpr (std::is_void_v<R>) {
            kernel(std::get<I>(values)...);
            PyEval_RestoreThread(state);
            Py_RETURN_NONE;
        } else {
            const R result = kernel(std::get<I>(values)...);
            PyEval_RestoreThread(state);
            if constexpr (std::is_floating_point_v<R>) {
                return PyFloat_FromDouble(static_cast<double>(result));
            } else {
                return PyLong_FromLongLong(result);
            }
        }
    } catch (const std::bad_alloc&) {
        PyEval_RestoreThread(state);
        return PyErr_NoMemory();
    }
}

template <typename R, typename... Args>
PyObject* call(R (*kernel)(Args...), PyObject* const* objects, Py_ssize_t count) {
    return call(kernel, objects, count, std::index_sequence_for<Args...>{});
}

template <auto Field>
PyObject* kernel_method(PyObject*, PyObject* const* objects, Py_ssize_t count) {
    return call(active->kernels->*Field, objects, count);
}

PyObject* levels(PyObject*, PyObject*) {
    PyObject* names = PyList_New(0);
    if (names == nullptr) return nullptr;
    for (const Level& level : kLevels) {
        if (!level.supported()) continue;
        PyObject* name = PyUnicode_FromString(level.name);
        if (name == nullptr || PyList_Append(names, name) < 0) {
            Py_XDECREF(name);
            Py_DECREF(names);
            return nullptr;
        }
        Py_DECREF(name);
    }
    return names;
}

PyObject* select(PyObject*, PyObject* name) {
    const char* wanted = PyUnicode_AsUTF8(name);
    if (wanted == nullptr) return nullptr;
    for (const Level& level : kLevels) {
        if (std::strcmp(level.name, wanted) == 0 && level.supported()) {
            active = &level;
            Py_RETURN_NONE;
        }
    }
    return PyErr_Format(PyExc_ValueError, "no instruction set %R here", name);
}

PyObject* selected(PyObject*, PyObject*) { return PyUnicode_FromString(active->name); }

#define SPARSEGEN_METHOD(name, ...)                                                                             \
    {#name, reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&kernel_method<&Kernels::name>)), METH_FASTCALL, \
     nullptr},

PyMethodDef methods[] = {
    SPARSEGEN_KERNELS(SPARSEGEN_METHOD){"levels", levels, METH_NOARGS, "Instruction sets of this machine, best last."},
    {"select", select, METH_O, "Uses one of levels() from now on."},
    {"selected", selected, METH_NOARGS, "The instruction set in use."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Kernels on plain buffers.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() {
    for (const Level& level : kLevels) {
        if (level.supported()) active = &level;
    }
    return PyModule_Create(&module);
}
