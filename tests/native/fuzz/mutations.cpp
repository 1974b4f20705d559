// Changes of one field of a model's description.
#include "fuzz.h"

namespace fuzz {
namespace {

// Contents that files may hold: any scale, any table, any bias.
void mutate_contents(Random &r, fw_matrix &m) {
    if (m.scales && r.one_in(2)) {
        const uint16_t scale = static_cast<uint16_t>(r.next());
        memcpy(reinterpret_cast<char *>(const_cast<uint16_t *>(m.scales)) + 2 * r.below(16), &scale,
               2);
    } else if (m.table && r.one_in(2)) {
        const int64_t entry = r.below(256);
        const_cast<int8_t *>(m.table)[entry] = static_cast<int8_t>(r.next());
    } else if (m.bias) {
        const_cast<float *>(m.bias)[0] = edge_float(r);
    }
}

void mutate(Random &r, fw_rotation &rotation, int64_t num_blocks) {
    fw_rotation_block &block =
        const_cast<fw_rotation_block *>(rotation.blocks)[r.below(num_blocks)];
    switch (r.below(8)) {
        case 0: rotation.length = edge_number(r, rotation.length); break;
        case 1: mutate_size(r, rotation.num_blocks); break;
        case 2: clear_pointer(r, rotation.signs); break;
        case 3: block.power = static_cast<int32_t>(edge_number(r, block.power)); break;
        case 4: mutate_size(r, block.order); break;
        case 5: clear_pointer(r, block.kernel); break;
        case 6: clear_pointer(r, block.kernel_transposed); break;
        default:
            if (rotation.signs)
                const_cast<uint8_t *>(rotation.signs)[0] ^= static_cast<uint8_t>(r.below(256));
    }
}

void mutate(Random &r, fw_layer &layer) {
    const float **const pointers[] = {&layer.attention_norm, &layer.ffn_norm,
                                      &layer.rope_frequencies, &layer.query_norm, &layer.key_norm};
    switch (r.below(4)) {
        case 0: layer.size = edge_number(r, layer.size); break;
        case 1: layer.window = edge_number(r, layer.window); break;
        case 2: clear_pointer(r, *r.choose(pointers)); break;
        default:
            if (layer.attention_norm) const_cast<float *>(layer.attention_norm)[0] = edge_float(r);
    }
}

void mutate_max_tokens(Random &r, fw_description &d) {
    d.max_tokens =
        static_cast<int32_t>(r.one_in(20) ? edge_number(r, d.max_tokens) : r.below(30) - 3);
}

template <typename T>
T &choose(Random &r, const std::vector<T *> &pointers) {
    return *pointers[static_cast<size_t>(r.below(static_cast<int64_t>(pointers.size())))];
}

}  // namespace

void mutate(Random &r, fw_matrix &m) {
    switch (r.below(16)) {
        case 0: m.size = edge_number(r, m.size); break;
        case 1: m.kind = static_cast<int32_t>(edge_number(r, m.kind)); break;
        case 2: m.bits = static_cast<int32_t>(edge_number(r, m.bits)); break;
        case 3:
            m.rows = edge_number(r, m.rows);
            m.bias = nullptr;  // it has no size of its own
            break;
        case 4: m.columns = edge_number(r, m.columns); break;
        case 5: mutate_size(r, m.codes_bytes); break;
        case 6: mutate_size(r, m.num_scales); break;
        case 7: m.group = edge_number(r, m.group); break;
        case 8: m.zero_point = static_cast<int32_t>(edge_number(r, m.zero_point)); break;
        case 9: mutate_size(r, m.state_bits); break;
        case 10: m.table_scale = edge_float(r); break;
        case 11: clear_pointer(r, m.codes); break;
        case 12: clear_pointer(r, m.scales); break;
        case 13:
            r.one_in(2) ? clear_pointer(r, m.zero_points) : clear_pointer(r, m.state_values);
            break;
        case 14: r.one_in(2) ? clear_pointer(r, m.table) : clear_pointer(r, m.code_matrix); break;
        default: mutate_contents(r, m);
    }
}

void mutate(Random &r, tiny::Model &model) {
    fw_description &d = model.description;
    int64_t *const sizes[] = {&d.size,      &d.hidden,       &d.vocabulary,
                              &d.num_heads, &d.num_kv_heads, &d.head_width};
    int32_t *const flags[] = {&d.activation, &d.int8_activations, &d.fp16_cache};
    float *const floats[] = {&d.epsilon,         &d.attention_scale, &d.attention_softcap,
                             &d.final_softcap,   &d.embedding_scale, &d.residual_scale,
                             &d.logit_divisor,   &d.rope_scale};
    switch (r.below(10)) {
        case 0: {
            int64_t &size = *r.choose(sizes);
            size = edge_number(r, size);
            break;
        }
        case 1: {
            int32_t &flag = *r.choose(flags);
            flag = static_cast<int32_t>(edge_number(r, flag));
            break;
        }
        case 2: *r.choose(floats) = edge_float(r); break;
        case 3: r.one_in(2) ? mutate_size(r, d.num_layers) : mutate_max_tokens(r, d); break;
        case 4: r.one_in(2) ? clear_pointer(r, d.final_norm) : clear_pointer(r, d.layers); break;
        case 5: mutate(r, choose(r, model.layers)); break;
        case 6: {
            const size_t index =
                static_cast<size_t>(r.below(static_cast<int64_t>(model.rotations.size())));
            mutate(r, *model.rotations[index], model.num_rotation_blocks[index]);
            break;
        }
        default: mutate(r, choose(r, model.matrices));
    }
}

}  // namespace fuzz
