#include "cli/pat_table.h"

#include "cli/pat_text.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include <sys/ioctl.h>
#include <unistd.h>

namespace pat::cli {

namespace {

constexpr std::size_t rows_in_block = 1000;
constexpr std::size_t gap_columns = 2;
constexpr std::size_t narrowest_cut = 3;
constexpr std::size_t usual_columns = 80;
constexpr std::string_view ellipsis = "…";

std::string_view environment(const char *name)
{
    const char *value = std::getenv(name);
    return value != nullptr ? value : "";
}

std::size_t columns_of_terminal()
{
    std::size_t columns = 0;
    const std::string_view set = environment("COLUMNS");
    std::from_chars(set.data(), set.data() + set.size(), columns);

    winsize size{};
    if (columns == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0) {
        columns = size.ws_col;
    }
    return columns != 0 ? columns : usual_columns;
}

/// The first characters of a text, and an ellipsis, in a number of columns.
std::string cut(std::string_view text, std::size_t columns)
{
    std::string result;
    std::size_t used = columns_of(ellipsis);
    while (!text.empty()) {
        std::string character;
        append_character(take_character(text), character);
        used += columns_of(character);
        if (used > columns) {
            break;
        }
        result += character;
    }
    return result.append(ellipsis);
}

}  // namespace

terminal find_terminal()
{
    if (isatty(STDOUT_FILENO) != 1) {
        return {};
    }
    return {columns_of_terminal(), environment("NO_COLOR").empty() && environment("TERM") != "dumb"};
}

table::table(output_stream &output, const terminal &terminal, std::vector<table_column> columns)
    : output_{output},
      terminal_{terminal},
      columns_{std::move(columns)},
      widths_(columns_.size())
{
    std::vector<table_cell> heads;
    for (const table_column &column : columns_) {
        heads.push_back({column.head, "1"});
    }
    add(std::move(heads));
}

void table::add(std::vector<table_cell> cells)
{
    for (std::size_t i = 0; i < cells.size(); i++) {
        widths_[i] = std::max(widths_[i], columns_of(cells[i].text));
    }
    rows_.push_back(std::move(cells));
    if (rows_.size() == rows_in_block) {
        write_block();
    }
}

/// Takes columns from the widest cells that are cut first, and then from others, until the table fits or none is left
/// to take.
void table::fit()
{
    std::size_t total = gap_columns * (widths_.size() - 1);
    for (const std::size_t width : widths_) {
        total += width;
    }

    column_cut turn = column_cut::first;
    while (terminal_.columns != 0 && total > terminal_.columns) {
        std::size_t *widest = nullptr;
        for (std::size_t i = 0; i < widths_.size(); i++) {
            if (columns_[i].cut == turn && widths_[i] > narrowest_cut && (widest == nullptr || widths_[i] > *widest)) {
                widest = &widths_[i];
            }
        }
        if (widest != nullptr) {
            --*widest;
            total--;
        } else if (turn == column_cut::first) {
            turn = column_cut::last;
        } else {
            return;
        }
    }
}

/// Returns how many columns it took.
std::size_t table::write_cell(const table_cell &cell, std::size_t width)
{
    const std::string text = columns_of(cell.text) > width ? cut(cell.text, width) : cell.text;
    const bool is_coloured = terminal_.has_colours && *cell.colour != '\0';
    std::string &out = output_.text();

    if (is_coloured) {
        out.append("\033[").append(cell.colour).append("m");
    }
    out += text;
    if (is_coloured) {
        out += "\033[m";
    }
    return columns_of(text);
}

void table::write_block()
{
    fit();
    for (const auto &cells : rows_) {
        std::size_t gap = 0;
        for (std::size_t i = 0; i < cells.size(); i++) {
            std::size_t used = 0;
            if (!cells[i].text.empty()) {
                output_.text().append(gap, ' ');
                used = write_cell(cells[i], widths_[i]);
                gap = 0;
            }
            gap += widths_[i] + gap_columns - used;
        }
        output_.end_line();
    }
    rows_.clear();
}

void table::finish()
{
    write_block();
    output_.finish();
}

}  // namespace pat::cli
