#include "core/pat_mutation.h"

#include <cstdlib>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace pat::mutation {

namespace {

int chosen = -1;
unsigned char *reached = nullptr;  // a byte a mutant, in a file, so that it outlives the process

// Before what the other files initialize, and before nginx takes the variables out of its environment.
[[gnu::constructor(101)]] void read_environment()
{
    if (const char *number = std::getenv("PAT_MUTANT")) {
        chosen = std::atoi(number);
    }

    const char *path = std::getenv("PAT_MUTANTS_REACHED");
    const int file = path != nullptr ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file == -1) {
        return;
    }
    void *mapping = mmap(nullptr, PAT_MUTANTS, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapping != MAP_FAILED) {
        reached = static_cast<unsigned char *>(mapping);
    }
    close(file);
}

}  // namespace

bool is_chosen(int number) noexcept
{
    if (reached != nullptr) {
        reached[number] = 1;
    }
    return number == chosen;
}

}  // namespace pat::mutation
