// A SIMD tier's float kernels: every family's vector source, compiled once a tier with that tier's features and lanes.
// No code of its own. Read next: ops.zig, scalar.zig (the plain twins).
const collect = @import("collect.zig");
const ops = @import("ops.zig");

pub fn table(comptime lanes: comptime_int) ops.Table {
    return collect.table(lanes, .{
        @import("gemm_vector.zig").Kernels(lanes),
        @import("attention_vector.zig").Kernels(lanes),
        @import("norm_vector.zig").Kernels(lanes),
        @import("rope_vector.zig").Kernels(lanes),
        @import("softmax_vector.zig").Kernels(lanes),
        @import("elementwise_vector.zig").Kernels(lanes),
        @import("activate_vector.zig").Kernels(lanes),
        @import("reduce_vector.zig").Kernels(lanes),
        @import("embed_vector.zig").Kernels(lanes),
        @import("loss_vector.zig").Kernels(lanes),
        @import("optimize_vector.zig").Kernels(lanes),
    });
}
