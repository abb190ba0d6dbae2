/// The error that PLANTED names, which sanitizers must report: as a program, and as a library that nginx loads.

#include <climits>
#include <cstdlib>
#include <string_view>

namespace {

[[gnu::constructor]] void make_error() noexcept
{
    const char *wanted = std::getenv("PLANTED");
    const std::string_view error = wanted != nullptr ? wanted : "";
    const auto *volatile memory = static_cast<char *>(std::calloc(1, 1));
    volatile int number = INT_MAX;

    if (error == "leak") {
        memory = nullptr;
    } else if (error == "address") {
        number = memory[1];
    } else if (error == "undefined") {
        number = number + 1;
    }
    std::free(const_cast<char *>(memory));
}

}  // namespace

int main()
{
    return 0;
}
