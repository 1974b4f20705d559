// Products of matrices with the activations of several tokens, divided among threads. Both a
// model's forward pass and `fw_product` use this code.
//
// A product has three steps. `prepare` rotates and rounds the activations of a token; `multiply`
// computes one thread's share of the product; `read` finishes the product of a token (scales,
// planes, output rotation, bias). A step reads what all threads wrote in the step before, so there
// must be a barrier between two steps. It is not needed when every thread prepares a buffer of its
// own.
//
// Products are divided by rows of the matrix. Products of trellis codes with up to
// `max_column_split_tokens` tokens are divided by columns, too. Their sums are integers, so adding
// the partial sums of different threads gives the same bits.
#pragma once
#include <cstdint>

#include "array.h"
#include "kernels/kernels.h"
#include "matrix.h"
#include "thread_shares.h"

namespace fw {

constexpr int64_t max_column_split_tokens = 8;

struct Span {
    int64_t begin, end;
};

// Part `index` of `count` units that are divided evenly into `num_parts` parts.
inline Span even_part(int64_t count, int64_t index, int64_t num_parts) {
    return {count * index / num_parts, count * (index + 1) / num_parts};
}

// The activations of several tokens, rotated by one rotation, in the forms that kernels read.
struct ActivationBuffer {
    Array<float> rotated;        // [tokens, width]
    Array<int8_t> codes;         // [vectors, width], and `planes` vectors a token
    Array<int8_t> interleaved;   // [vectors, width]
    Array<int32_t> prefix_sums;  // [vectors, prefix_stride]
    Array<float> scales;         // [vectors]
    int64_t width = 0;           // columns, padded
    int64_t prefix_stride = 0;

    ActivationBuffer() = default;
    ActivationBuffer(int64_t max_tokens, int64_t columns);
    Int8Activations int8() const {
        return {codes.get(), interleaved.get(), prefix_sums.get(), scales.get(),
                width,       prefix_stride};
    }
};

// The product of several tokens with one matrix after `multiply` and before `read`.
struct ProductBuffer {
    Array<float> products;  // [vectors, width]
    // Of trellis codes: [vectors, width], or [threads, vectors, width] where they are divided by
    // columns.
    Array<int32_t> partial_sums;
    int64_t width = 0;  // rows, padded

    // Allocates memory for products of up to `max_tokens` tokens with `w`. Matrices with the same
    // number of rows may use the same buffer.
    void make_room(const Matrix &w, int64_t max_tokens, int num_threads);
};

// The scratch memory of one thread for products.
struct ProductScratch {
    Array<float> rotation;      // for the rotations
    Array<float> decoded;       // rows of a matrix as float32
    Array<float> second_plane;  // a token's product, padded
    Array<int32_t> sums;        // of a row block
};

// The part of one thread in products.
class ProductWorker {
public:
    ProductWorker(const Kernels &kernels, const ThreadShares &shares, int index, int num_threads,
                  const ProductScratch &scratch)
        : k_(kernels),
          shares_(shares),
          index_(index),
          num_threads_(num_threads),
          scratch_(scratch) {}

    // Writes the activations x [length] of token `token` into `buffer`, rotated and rounded to
    // `planes` planes (0: not rounded).
    void prepare(const Rotation *rotation, const float *x, int64_t length, int planes,
                 int64_t token, ActivationBuffer &buffer) const;
    // Computes this thread's share of the product of `w` with the first `num_tokens` tokens of `x`.
    void multiply(const Matrix &w, const ActivationBuffer &x, int64_t num_tokens,
                  ProductBuffer &out) const;
    // Writes the finished product of token `token` to `out` [padded rows]. num_tokens is that of
    // `multiply`.
    void read(const Matrix &w, const ActivationBuffer &x, const ProductBuffer &product,
              int64_t num_tokens, int64_t token, float *out) const;

private:
    int64_t share_begin(int64_t count, int index) const;
    Span share_of(int64_t count) const;
    int64_t first_trellis_unit(const Matrix &w, int index) const;
    void multiply_floats(const Matrix &w, const ActivationBuffer &x, int64_t num_tokens,
                         ProductBuffer &out) const;
    void multiply_trellis_by_columns(const Matrix &w, const ActivationBuffer &x,
                                     int64_t num_vectors, ProductBuffer &out) const;
    void multiply_trellis_by_vectors(const Matrix &w, const ActivationBuffer &x,
                                     int64_t num_vectors, ProductBuffer &out) const;
    void read_trellis_vector(const Matrix &w, float scale, const ProductBuffer &product,
                             int64_t num_tokens, int64_t vector, float *out) const;

    const Kernels &k_;
    const ThreadShares &shares_;
    int index_, num_threads_;
    const ProductScratch &scratch_;
};

}  // namespace fw
