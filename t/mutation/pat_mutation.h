#pragma once

#include <type_traits>

// What mutated sources call: each function does what the source says, unless its mutant is the one that PAT_MUTANT in
// the environment names. Constants of the compiler keep their values.
namespace pat::mutation {

/// Whether this mutant is the chosen one. Notes that the place was reached.
bool is_chosen(int number) noexcept;

constexpr bool is_on(int number) noexcept
{
    return !std::is_constant_evaluated() && is_chosen(number);
}

// Two mutants for each comparison: with the bound shifted, and with the opposite result.

template <class Left, class Right>
constexpr bool less(int number, const Left &left, const Right &right)
{
    return is_on(number) ? left <= right : is_on(number + 1) ? !(left < right) : left < right;
}

template <class Left, class Right>
constexpr bool less_equal(int number, const Left &left, const Right &right)
{
    return is_on(number) ? left < right : is_on(number + 1) ? !(left <= right) : left <= right;
}

template <class Left, class Right>
constexpr bool greater(int number, const Left &left, const Right &right)
{
    return is_on(number) ? left >= right : is_on(number + 1) ? !(left > right) : left > right;
}

template <class Left, class Right>
constexpr bool greater_equal(int number, const Left &left, const Right &right)
{
    return is_on(number) ? left > right : is_on(number + 1) ? !(left >= right) : left >= right;
}

template <class Left, class Right>
constexpr auto plus(int number, Left left, Right right)
{
    return is_on(number) ? left - right : left + right;
}

template <class Left, class Right>
constexpr auto minus(int number, Left left, Right right)
{
    return is_on(number) ? left + right : left - right;
}

template <class Left, class Right>
constexpr auto bit_and(int number, Left left, Right right)
{
    return is_on(number) ? left | right : left & right;
}

template <class Left, class Right>
constexpr auto bit_or(int number, Left left, Right right)
{
    return is_on(number) ? left & right : left | right;
}

/// Another value of the same type: the first one, or the second if it is the first one already.
template <class Value>
constexpr Value returned(int number, Value value)
{
    if (!is_on(number)) {
        return value;
    }
    if constexpr (std::is_same_v<Value, const char *>) {
        return "";
    } else if constexpr (std::is_enum_v<Value> || std::is_arithmetic_v<Value>) {
        return value == Value{} ? static_cast<Value>(1) : Value{};
    } else {
        return {};
    }
}

}  // namespace pat::mutation
