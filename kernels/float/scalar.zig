// The scalar tier's float kernels: every family's plain twin, for the baseline CPU.
// No code of its own. Read next: ops.zig, vector.zig (the same for SIMD tiers).
const collect = @import("collect.zig");
const ops = @import("ops.zig");

pub const table: ops.Table = collect.table(1, .{
    @import("gemm_scalar.zig"),
    @import("attention_scalar.zig"),
    @import("norm_scalar.zig"),
    @import("rope_scalar.zig"),
    @import("softmax_scalar.zig"),
    @import("elementwise_scalar.zig"),
    @import("activate_scalar.zig"),
    @import("reduce_scalar.zig"),
    @import("embed_scalar.zig"),
    @import("loss_scalar.zig"),
    @import("optimize_scalar.zig"),
});
