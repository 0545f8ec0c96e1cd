// A rule: one published or own way to perturb, run and train the int8 model. Here is what a model has to know of its rule;
// the rest lies in a file each: initial weights, noise and update in egg_c.zig and nano_egg.zig, the operators that differ in
// ops.zig (Operators) and its twins. Read next: model.zig, then one of those.
const layout = @import("layout.zig");

/// The numbers are part of the ABI (src/models/egg.ts).
pub const Rule = enum(u32) {
    /// d0rc/egg.c, full_trained_egg.c.
    egg_c = 0,
    /// ESHyperscale/nano-egg, run.py.
    nano_egg = 1,

    /// Whether embedding, biases and norms are perturbed and trained too, not only the matrices.
    pub fn perturbsAll(rule: Rule) bool {
        return rule == .nano_egg;
    }

    /// Whether an input byte 0 sets the recurrent state to zero before it is read.
    pub fn resetsAtZero(rule: Rule) bool {
        return rule == .nano_egg;
    }

    /// Largest magnitude of a noise value.
    pub fn noiseMax(rule: Rule) u32 {
        return switch (rule) {
            .egg_c => 31,
            .nano_egg => 86,
        };
    }

    /// Widest model whose perturbed products stay within 32 bits: 4 * hidden * 127 * noise^2.
    pub fn hiddenMax(rule: Rule) u32 {
        return @min(4096, (1 << 31) / (4 * 127 * rule.noiseMax() * rule.noiseMax()) / 16 * 16);
    }

    /// What a product of `cols` inputs is divided by.
    pub fn scaleOf(rule: Rule, place: layout.Place, cols: u32) layout.Scale {
        switch (rule) {
            // Fixed shifts, whatever the width.
            .egg_c => return .{ .shift = if (place == .layer and place.layer.tensor == .project) 9 else 8, .root = 1 },
            // 16 * floor(sqrt(cols)), as a shift where that is a power of two.
            .nano_egg => {
                const root = floorSqrt(cols);
                return if (root & (root - 1) == 0) .{ .shift = 4 + @ctz(root), .root = 1 } else .{ .shift = 4, .root = root };
            },
        }
    }

    /// What tells a parameter's noise from that of others.
    pub fn numberOf(rule: Rule, place: layout.Place) u32 {
        return switch (rule) {
            .egg_c => egg_c.numberOf(place),
            .nano_egg => nano_egg.numberOf(place),
        };
    }
};

const egg_c = struct {
    /// Added to the pair's seed: 100 * layer + 1 .. 6, 999 for the head.
    fn numberOf(place: layout.Place) u32 {
        return switch (place) {
            .outer => 999,
            .layer => |layer| 100 * layer.index + @as(u32, switch (layer.tensor) {
                .wf => 1,
                .uf => 2,
                .wh => 3,
                .uh => 4,
                .expand => 5,
                .project => 6,
                .ln1, .bf, .bh, .ln2 => unreachable, // never perturbed
            }),
        };
    }
};

const nano_egg = struct {
    /// Place among the reference's 13 leaves, sorted by name; 16 * (layer + 1) besides for those that are split by layer.
    fn numberOf(place: layout.Place) u32 {
        return switch (place) {
            .layer => |layer| 16 * (layer.index + 1) + @as(u32, switch (layer.tensor) {
                .uf => 0,
                .uh => 1,
                .wf => 2,
                .wh => 3,
                .bf => 4,
                .bh => 5,
                .ln1 => 6,
                .ln2 => 7,
                .expand => 8,
                .project => 9,
            }),
            .outer => |tensor| switch (tensor) {
                .embedding => 10,
                .head => 11,
                .ln_out => 12,
            },
        };
    }
};

pub fn floorSqrt(n: u32) u32 {
    var root: u32 = 0;
    while ((root + 1) * (root + 1) <= n) root += 1;
    return root;
}
