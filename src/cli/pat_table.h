#pragma once

#include "cli/pat_output.h"

#include <cstddef>
#include <string>
#include <vector>

/// Tables, for people.
namespace pat::cli {

/// The terminal that standard output is.
struct terminal {
    std::size_t columns = 0;  ///< 0: it is none, and lines may have any length
    bool has_colours = false;
};

/// COLUMNS and NO_COLOR (no-color.org) count where standard output is a terminal.
[[nodiscard]] terminal find_terminal();

/// Whether a column is cut where the table is wider than the terminal.
enum class column_cut : unsigned char {
    never,
    first,
    last,  ///< if the others can't be cut any more
};

struct table_column {
    std::string head;
    column_cut cut = column_cut::never;
};

struct table_cell {
    std::string text;
    const char *colour = "";  ///< parameters of SGR (ECMA-48), such as "32" for green
};

/// Rows in columns as wide as their widest cell, or as the terminal has room for. Written in blocks, so that a table
/// may be longer than memory.
class table {
public:
    table(output_stream &output, const terminal &terminal, std::vector<table_column> columns);

    void add(std::vector<table_cell> cells);
    void finish();

private:
    void write_block();
    std::size_t write_cell(const table_cell &cell, std::size_t width);
    void fit();

    output_stream &output_;
    terminal terminal_;
    std::vector<table_column> columns_;
    std::vector<std::size_t> widths_;
    std::vector<std::vector<table_cell>> rows_;
};

}  // namespace pat::cli
