// The tables of a GF(2)-linear trellis code, in the forms that the kernels of each instruction set
// read.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "array.h"
#include "featherweight.h"
#include "kernels/kernels.h"

namespace fw {

// One code, shared by all matrices that use it.
struct TrellisCode {
    const int8_t *source_table;  // the caller's arrays, from which the tables were built
    const uint8_t *source_matrix;
    int32_t state_bits;

    Array<uint64_t> byte_matrices;  // [3, 8] for TrellisMatrix::byte0_matrices and so on
    Array<uint8_t> permuted_table;  // [256]
    bool select_by_min_max;
    Array<uint8_t> table;          // [256]
    Array<uint8_t> nibble_tables;  // [3, 16]
    bool has_nibble_form;
    Array<uint8_t> older_bit_tables;  // [4, 16]
    Array<int8_t> state_values;       // [2^state_bits]

    // Sets the fields of `w` that describe its code.
    void describe(TrellisMatrix &w) const;
};

using TrellisCodes = std::vector<std::unique_ptr<TrellisCode>>;

// Finds the code of `source` among `codes`, or checks, builds and adds it.
int32_t build_trellis_code(const fw_matrix &source, TrellisCodes &codes, const TrellisCode *&out);

}  // namespace fw
