// ggml's operator MUL_MAT_ID: rows times the weight matrices of those experts that each row chose.
//
//     out (T, S, N)[t][s] = rows (T, S or 1, K)[t][s or 0] times weights (E, N, K)[ids[t][s]]
//
//     T   tokens; S of the E experts are chosen for each
//
// A weight is read once for all rows that chose its expert, in the tiles of a product: the rows of
// an expert are packed into Units together. Every row is rounded once, and packed once where it is
// alone. Knows nothing of formats.
#pragma once

#include "product.h"

#include <numeric>
#include <vector>

namespace {

struct Choice {
    int token, slot;
};

struct ChosenExpert {
    int expert, n_rows;
    const Choice * rows;
    int64_t first_unit;  // of all experts' Units
    bool has_own_units;  // or those of another expert, which the same row chose alone
};

// Who chose whom: the experts that any row chose, in order, each with its rows in order
class Routing {
public:
    // units_of(n): how many Units n rows make; source_of(choice): a number for the row it is of
    template <class UnitsOf, class SourceOf>
    Routing(const abi::Tensor * ids, int n_experts, UnitsOf units_of, SourceOf source_of)
        : choices_(ids->ne[0] * ids->ne[1]) {
        const std::vector<int> ends = sort(ids, n_experts);
        std::vector<int64_t> units_of_one(choices_.size(), -1);
        int64_t n_units = 0;
        for (int expert = 0, start = 0; expert < n_experts; start = ends[expert++]) {
            const int n_rows = ends[expert] - start;
            if (n_rows == 0) continue;
            const Choice * rows = choices_.data() + start;
            int64_t several = -1;
            int64_t & first_unit = n_rows > 1 ? several : units_of_one[source_of(*rows)];
            const bool is_new = first_unit < 0;
            if (is_new) first_unit = n_units;
            experts_.push_back({expert, n_rows, rows, first_unit, is_new});
            n_units += is_new ? units_of(n_rows) : 0;
        }
    }
    const std::vector<ChosenExpert> & experts() const { return experts_; }

private:
    // By expert; the end of each one's
    std::vector<int> sort(const abi::Tensor * ids, int n_experts) {
        std::vector<int> ends(n_experts + 1);
        each(ids, [&](int expert, Choice) { ++ends[expert + 1]; });
        std::partial_sum(ends.begin(), ends.end(), ends.begin());
        each(ids, [&](int expert, Choice choice) { choices_[ends[expert]++] = choice; });
        return ends;
    }

    template <class Visit>
    static void each(const abi::Tensor * ids, Visit visit) {
        for (int token = 0; token < ids->ne[1]; ++token) {
            for (int slot = 0; slot < ids->ne[0]; ++slot) {
                const char * id = (const char *)ids->data + token * ids->nb[1] + slot * ids->nb[0];
                visit(*(const int32_t *)id, Choice{token, slot});
            }
        }
    }

    std::vector<Choice> choices_;
    std::vector<ChosenExpert> experts_;
};

// One such operator, as one thread sees it: what kernels for few and for many rows share
template <class Kernel>
class ExpertOperator {
public:
    using Row = typename Kernel::Row;
    using Unit = typename Kernel::Unit;

protected:
    explicit ExpertOperator(const abi::Tensor * op)
        : weights_(op->src[0]), rows_(op->src[1]), ids_(op->src[2]), out_(op),
          n_blocks_((int)(weights_->ne[0] / Kernel::BLOCK)) {}

    int64_t n_choices() const { return ids_->ne[0] * ids_->ne[1]; }
    int64_t n_sources() const { return rows_->ne[1] * rows_->ne[2]; }
    size_t rounded_bytes() const { return sizeof(Row) * n_blocks_ * (n_sources() + 1); }
    int64_t source_of(const Choice & choice) const {
        return choice.token * rows_->ne[1] + choice.slot % rows_->ne[1];
    }
    const char * weights_of(const ChosenExpert & chosen) const {
        return (const char *)weights_->data + chosen.expert * weights_->nb[2];
    }

    // Blocks `from` to `to` of all rows, and of zeros behind them
    void round(Row * rounded, int from, int to) const {
        const auto round_row = rounding_to(Kernel::ROW);
        for (int64_t i = 0; i < n_sources(); ++i) {
            const char * row = (const char *)rows_->data + i / rows_->ne[1] * rows_->nb[2] +
                               i % rows_->ne[1] * rows_->nb[1];
            round_row((const float *)row + from * Kernel::BLOCK, rounded + i * n_blocks_ + from,
                      (int64_t)(to - from) * Kernel::BLOCK);
        }
        memset(rounded + n_sources() * n_blocks_ + from, 0, sizeof(Row) * (to - from));
    }

    // multiply(chosen, part, n_parts): a part of an expert's weight rows. At least
    // CHUNKS_OF_A_THREAD chunks for each thread, one expert or a part of one, so that none waits
    // long for the last one.
    template <class Multiply>
    void share_out(const abi::ComputeParams * params, const Routing & routing,
                   Multiply multiply) const {
        constexpr int CHUNKS_OF_A_THREAD = 4;
        const int ith = params->ith, nth = params->nth, n_chosen = (int)routing.experts().size();
        if (ith == 0) ggml.chunk_set(params->threadpool, nth);
        ggml.barrier(params->threadpool);
        const int n_parts = nth == 1 ? 1 : (CHUNKS_OF_A_THREAD * nth + n_chosen - 1) / n_chosen;
        for (int chunk = ith; chunk < n_chosen * n_parts;
             chunk = ggml.chunk_add(params->threadpool, 1))
            multiply(routing.experts()[chunk / n_parts], chunk % n_parts, n_parts);
    }

    // Rows of n columns, from buffers of so many numbers each to where they belong
    void put(const Choice * rows, int n_rows, const float * sums, int64_t stride, int64_t column,
             int64_t n) const {
        for (int i = 0; i < n_rows; ++i) {
            char * out =
                (char *)out_->data + rows[i].token * out_->nb[2] + rows[i].slot * out_->nb[1];
            memcpy((float *)out + column, sums + i * stride, n * sizeof(float));
        }
    }

    const abi::Tensor *weights_, *rows_, *ids_, *out_;
    int n_blocks_;
};

template <class Kernel>
class ExpertProduct : ExpertOperator<Kernel> {
    using Base = ExpertOperator<Kernel>;
    using typename Base::Row;
    using typename Base::Unit;
    using Base::ids_, Base::n_blocks_, Base::weights_;

public:
    explicit ExpertProduct(const abi::Tensor * op) : Base(op) {}

    size_t work_bytes(int) const {
        const int64_t most_units =
            std::min(this->n_choices(), this->n_choices() / Kernel::ROWS + weights_->ne[2]);
        return this->rounded_bytes() + alignof(Row) + alignof(Unit) +
               sizeof(Unit) * n_blocks_ * most_units;
    }

    void compute(const abi::ComputeParams * params) const {
        const int ith = params->ith, nth = params->nth;
        const Routing routing(ids_, (int)weights_->ne[2], units_of<Kernel>,
                              [&](const Choice & choice) { return this->source_of(choice); });
        Row * rounded = aligned<Row>(params->wdata);
        Unit * units = aligned<Unit>((char *)rounded + this->rounded_bytes());
        const int from = n_blocks_ * ith / nth, to = n_blocks_ * (ith + 1) / nth;
        this->round(rounded, from, to);
        for (const ChosenExpert & chosen : routing.experts())
            if (chosen.has_own_units) pack(chosen, rounded, units, from, to);
        this->share_out(params, routing, [&](const auto & chosen, int part, int n_parts) {
            multiply(chosen, units, part, n_parts);
        });
    }

private:
    static constexpr int COLUMNS_AT_A_TIME = 256;  // of the result, whose rows lie apart

    void pack(const ChosenExpert & chosen, const Row * rounded, Unit * units, int from,
              int to) const {
        const int n_places = units_of<Kernel>(chosen.n_rows) * Kernel::ROWS;
        for (int row = 0; row < n_places; ++row) {
            const int64_t source =
                row < chosen.n_rows ? this->source_of(chosen.rows[row]) : this->n_sources();
            pack_blocks<Kernel>(rounded + source * n_blocks_ + from, row, chosen.n_rows, n_blocks_,
                                units + chosen.first_unit * n_blocks_, from, to - from);
        }
    }

    // The part-th of n_parts of an expert's weight rows. The last one takes weight rows that make
    // no whole group together with some that it had before.
    void multiply(const ChosenExpert & chosen, const Unit * units, int part, int n_parts) const {
        const int64_t n_out = weights_->ne[1], n_groups = n_out / Kernel::COLUMNS;
        const Unit * own = units + chosen.first_unit * n_blocks_;
        multiply_columns(chosen, own, n_groups * part / n_parts * Kernel::COLUMNS,
                         n_groups * (part + 1) / n_parts * Kernel::COLUMNS);
        if (n_out % Kernel::COLUMNS != 0 && part == n_parts - 1)
            multiply_columns(chosen, own, n_out - Kernel::COLUMNS, n_out);
    }

    void multiply_columns(const ChosenExpert & chosen, const Unit * units, int64_t from,
                          int64_t to) const {
        const int64_t row_bytes = weights_->nb[1];
        const int64_t fits = WEIGHTS_AT_A_TIME / row_bytes / Kernel::COLUMNS * Kernel::COLUMNS;
        const int64_t most = std::max<int64_t>(
            Kernel::COLUMNS, std::min<int64_t>(COLUMNS_AT_A_TIME, fits));
        for (; from < to; from += most) {
            const int64_t n = std::min(most, to - from);
            multiply_rows(chosen, units, this->weights_of(chosen) + from * row_bytes, from, n);
        }
    }

    // n weight rows times all of an expert's rows
    void multiply_rows(const ChosenExpert & chosen, const Unit * units, const char * weights,
                       int64_t first_column, int64_t n) const {
        float sums[PANEL * Kernel::ROWS][COLUMNS_AT_A_TIME];
        const int n_units = units_of<Kernel>(chosen.n_rows);
        for (int first = 0; first < n_units; first += PANEL) {
            const Place place = place_of(first, n_blocks_, n_units);
            const int row = first * Kernel::ROWS;
            const int n_rows = std::min(PANEL * Kernel::ROWS, chosen.n_rows - row);
            multiply_groups<Kernel>(weights, n_blocks_, units + place.first, place.step, 0,
                                    n / Kernel::COLUMNS, sums[0], COLUMNS_AT_A_TIME, n_rows);
            this->put(chosen.rows + row, n_rows, sums[0], COLUMNS_AT_A_TIME, first_column, n);
        }
    }
};

// Likewise with the kernel for many rows, as a prompt's experts have
template <class Kernel>
class ManyExpertProduct : ExpertOperator<Kernel> {
    using Base = ExpertOperator<Kernel>;
    using typename Base::Row;
    using typename Base::Unit;
    using Base::ids_, Base::n_blocks_, Base::weights_;
    static constexpr int C = Kernel::COLUMNS;

    struct Work {  // of one thread
        ManyWork<Kernel> many;
        float sums[ManyWork<Kernel>::ROWS][C];
    };

public:
    explicit ManyExpertProduct(const abi::Tensor * op) : Base(op) {}

    size_t work_bytes(int n_threads) const {
        const int64_t most_units = this->n_choices() + weights_->ne[2] * (Kernel::P - 1);
        return alignof(Work) + sizeof(Work) * n_threads + this->rounded_bytes() + alignof(Row) +
               alignof(Unit) + sizeof(Unit) * n_blocks_ * most_units;
    }

    void compute(const abi::ComputeParams * params) const {
        const int ith = params->ith, nth = params->nth;
        const Routing routing(ids_, (int)weights_->ne[2], ManyRows<Kernel>::padded,
                              [&](const Choice & choice) { return this->source_of(choice); });
        Work * work = aligned<Work>(params->wdata);
        Row * rounded = aligned<Row>(work + nth);
        Unit * units = aligned<Unit>((char *)rounded + this->rounded_bytes());
        const int from = n_blocks_ * ith / nth, to = n_blocks_ * (ith + 1) / nth;
        this->round(rounded, from, to);
        for (const ChosenExpert & chosen : routing.experts()) {
            if (!chosen.has_own_units) continue;
            const auto read = [&](int row, int first, int n, Row * blocks) {
                const Row * of = rounded + this->source_of(chosen.rows[row]) * n_blocks_;
                std::copy_n(of + first, n, blocks);
            };
            rows_of(chosen, units).pack(read, from, to);
        }
        this->share_out(params, routing, [&](const auto & chosen, int part, int n_parts) {
            multiply(chosen, units, work[ith], part, n_parts);
        });
    }

private:
    ManyRows<Kernel> rows_of(const ChosenExpert & chosen, Unit * units) const {
        return {units + chosen.first_unit * n_blocks_, chosen.n_rows, n_blocks_};
    }

    void multiply(const ChosenExpert & chosen, Unit * units, Work & work, int part,
                  int n_parts) const {
        const int64_t n_out = weights_->ne[1], n_groups = n_out / C;
        for (int64_t i = n_groups * part / n_parts; i < n_groups * (part + 1) / n_parts; ++i)
            multiply_group(chosen, units, work, i * C);
        if (n_out % C != 0 && part == n_parts - 1) multiply_group(chosen, units, work, n_out - C);
    }

    void multiply_group(const ChosenExpert & chosen, Unit * units, Work & work,
                        int64_t column) const {
        const char * group = this->weights_of(chosen) + column * (int64_t)weights_->nb[1];
        const ManyRows<Kernel> all = rows_of(chosen, units);
        for (int first = 0; first < chosen.n_rows; first += work.many.ROWS) {
            const int n = std::min(work.many.ROWS, chosen.n_rows - first);
            const ManyRows<Kernel> rows = {all.at(first, 0), n, n_blocks_};
            ::multiply_rows(group, rows, 0, work.many, work.sums[0], C);
            this->put(chosen.rows + first, n, work.sums[0], C, column, C);
        }
    }
};

// Whether a kernel for many rows unpacks Panels, as many_rows.h describes it
template <class Kernel, class = void>
constexpr bool HAS_PANELS = false;
template <class Kernel>
constexpr bool HAS_PANELS<Kernel, std::void_t<typename Kernel::Panel>> = true;

template <class Kernel>
class Experts final {
public:
    static abi::TensorTraits * take(const abi::Tensor * op) {
        static Computing<ExpertProduct<Kernel>> few;
        using Many = typename ForManyRows<Kernel>::Kernel;
        constexpr int MOST = std::min(Kernel::MOST_ROWS, MOST_OF_FEW_ROWS);
        if constexpr (HAS_PANELS<Many>) {
            static Computing<ManyExpertProduct<Many>> many;
            if (!has_at_most(MOST, op) && has_groups<Many>(op->src[0])) return &many;
        }
        return has_groups<Kernel>(op->src[0]) && (!IS_TILED || has_at_most(MOST, op)) ? &few
                                                                                     : nullptr;
    }

private:
    template <class Multiplication>
    class Computing final : public abi::TensorTraits {
    public:
        bool work_size(int n_threads, const abi::Tensor * op, size_t & size) override {
            size = Multiplication(op).work_bytes(n_threads);
            return true;
        }
        bool compute_forward(abi::ComputeParams * params, abi::Tensor * op) override {
            Multiplication(op).compute(params);
            return true;
        }
    };

    // ggml's only kernel for many rows of an expert is `tiled.cpp`, for k-quants as in the file.
    static constexpr bool IS_TILED = Kernel::ROW == abi::Q8_K && Kernel::SIDE_BY_SIDE == 1;

    static bool has_at_most(int64_t rows_of_an_expert, const abi::Tensor * op) {
        const int64_t n_choices = op->src[2]->ne[0] * op->src[2]->ne[1];
        return n_choices <= rows_of_an_expert * op->src[0]->ne[2];
    }
};

}  // namespace
