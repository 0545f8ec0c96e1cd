// All tests of the float kernels, family by family. One family alone: `zig build test -Dfilter=gemm`.
// No test of its own. Read next: trial.zig.
test {
    _ = @import("run_test.zig");
    _ = @import("gemm_test.zig");
    _ = @import("attention_test.zig");
    _ = @import("norm_test.zig");
    _ = @import("rope_test.zig");
    _ = @import("softmax_test.zig");
    _ = @import("elementwise_test.zig");
    _ = @import("activate_test.zig");
    _ = @import("reduce_test.zig");
    _ = @import("embed_test.zig");
    _ = @import("loss_test.zig");
    _ = @import("optimize_test.zig");
    _ = @import("ladder.zig");
}
