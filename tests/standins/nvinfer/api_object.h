// How the genuine Python bindings talk to a TensorRT library, and how a class of ours can answer.
//
// The public classes (ITensor, IBuilder, ...) have only inline methods, compiled into the bindings. An inline
// method fetches the implementation pointer that follows the object's own vtable pointer, and calls a function
// by its number in the implementation's table:
//
//     public object                     implementation              table of methods
//     +-----------------------+         +-----------------+         +--------------------------+
//     | vtable (destructor)   |    +--> | methods         | ------> | 0, 1: destructors        |
//     | implementation        | ---+    | owner (ours)    |         | 2: the first method, ... |
//     +-----------------------+         +-----------------+         +--------------------------+
//
// The numbers ("slots") are the binary interface of TensorRT 10; they only grew at the end from 10.0 to 10.16.
// A class here lists the slots it fills; any other slot says on stderr that it is missing and answers 0.
#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <utility>

namespace standin {

using AnyFunction = void (*)();

struct Implementation {
    const AnyFunction* methods;
    void* owner;
};

class ApiObject {
public:
    ApiObject(const AnyFunction* methods, void* owner) : implementation_{methods, owner} {}
    ApiObject(const ApiObject&) = delete;
    ApiObject& operator=(const ApiObject&) = delete;
    virtual ~ApiObject() = default;  // the bindings delete the objects that Python owns

private:
    Implementation* const pointer_ = &implementation_;  // must stay the first member: the bindings read it
    Implementation implementation_;
};

// Turns a member function into a plain function that takes an Implementation and calls its owner.
template <auto Member>
struct Call;

template <class Owner, class Result, class... Arguments, Result (Owner::*Member)(Arguments...)>
struct Call<Member> {
    static Result on(Implementation* self, Arguments... arguments) {
        return (static_cast<Owner*>(self->owner)->*Member)(arguments...);
    }
};

template <class Owner, class Result, class... Arguments, Result (Owner::*Member)(Arguments...) const>
struct Call<Member> {
    static Result on(Implementation* self, Arguments... arguments) {
        return (static_cast<const Owner*>(self->owner)->*Member)(arguments...);
    }
};

template <auto Member>
AnyFunction method() {
    return reinterpret_cast<AnyFunction>(&Call<Member>::on);
}

// The slots that `Owner` fills. `Owner::apiName` is the public class it answers for.
template <class Owner>
class MethodTable {
public:
    MethodTable(std::initializer_list<std::pair<int, AnyFunction>> filled) {
        markAllMissing(std::make_integer_sequence<int, SIZE>());
        for (const auto& [slot, function] : filled) functions_[static_cast<size_t>(slot)] = function;
    }

    const AnyFunction* functions() const { return functions_.data(); }

private:
    static constexpr int SIZE = 128;  // more than any class of TensorRT 10 has

    template <int slot>
    static int64_t missing(Implementation*) {
        std::fprintf(stderr, "libnvinfer stand-in: slot %d of %s is not there\n", slot, Owner::apiName);
        return 0;
    }

    template <int... slots>
    void markAllMissing(std::integer_sequence<int, slots...>) {
        functions_ = {reinterpret_cast<AnyFunction>(&missing<slots>)...};
    }

    std::array<AnyFunction, SIZE> functions_;
};

}  // namespace standin
