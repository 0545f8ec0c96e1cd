// Tests of matrix products: every tier against an f64 reference, with every layout, type and end of the product.
// Read next: trial.zig (runs one instruction alone).
const std = @import("std");
const cpu = @import("../cpu.zig");
const ops = @import("ops.zig");
const scalar = @import("gemm_scalar.zig");
const trial = @import("trial.zig");

const gpa = std.testing.allocator;
const Dtype = ops.Dtype;

const Options = struct {
    ta: bool = false,
    tb: bool = false,
    outer: u32 = 1,
    inner: u32 = 1,
    shared_b: bool = false,
    a: Dtype = .f32,
    b: Dtype = .f32,
    c: Dtype = .f32,
    compute: Dtype = .f32,
    activation: ops.Activation = .none,
    bias: bool = false,
    slope: bool = false,
    factor: bool = false,
    alpha: f32 = 1,
    beta: f32 = 0,
    pad: u32 = 3,
};

/// All tables, also the one that a CPU with AVX512_BF16 does not take.
fn tables(buffer: *[9]*const ops.Table) []const *const ops.Table {
    const found = trial.tables();
    @memcpy(buffer[0..found.len], found);
    const other = cpu.withoutBf16() orelse return buffer[0..found.len];
    buffer[found.len] = other;
    return buffer[0 .. found.len + 1];
}

fn put(memory: *trial.Memory, dtype: Dtype, random: std.Random, count: usize) ops.Ref {
    if (dtype == .f32) return memory.normal(random, count);
    if (dtype == .i8) {
        const ref = memory.reserve(i8, count);
        for (memory.slice(i8, ref, count)) |*q| q.* = random.int(i8);
        return ref;
    }
    const ref = memory.reserve(u16, count);
    for (memory.slice(u16, ref, count)) |*x| x.* = scalar.toBf16(random.floatNorm(f32));
    return ref;
}

fn get(memory: trial.Memory, dtype: Dtype, ref: ops.Ref, at: usize) f32 {
    return switch (dtype) {
        .f32 => memory.slice(f32, ref, at + 1)[at],
        .i8 => @floatFromInt(memory.slice(i8, ref, at + 1)[at]),
        else => scalar.toF32(memory.slice(u16, ref, at + 1)[at]),
    };
}

/// act(x) and act'(x).
fn activate(activation: ops.Activation, x: f64) [2]f64 {
    const s = 1 / (1 + @exp(-x));
    const t = std.math.tanh(x);
    return switch (activation) {
        .none => .{ x, 1 },
        .relu => .{ @max(x, 0), if (x > 0) 1 else 0 },
        .gelu => {
            const c = @sqrt(2.0 / std.math.pi);
            const u = std.math.tanh(c * (x + 0.044715 * x * x * x));
            return .{ 0.5 * x * (1 + u), 0.5 * (1 + u) + 0.5 * x * (1 - u * u) * c * (1 + 3 * 0.044715 * x * x) };
        },
        .silu => .{ x * s, s + x * s * (1 - s) },
        .sigmoid => .{ s, s * (1 - s) },
        .tanh => .{ t, 1 - t * t },
    };
}

/// Runs one product on every tier and compares every element of C and `slope`, and what lies around them.
fn check(m: u32, n: u32, k: u32, o: Options) !void {
    const lda = (if (o.ta) m else k) + o.pad;
    const ldb = (if (o.tb) k else n) + o.pad;
    const ldc = n + o.pad;
    const batches = o.outer * o.inner;
    const a_size = (if (o.ta) k else m) * lda;
    const b_size = (if (o.tb) n else k) * ldb;
    const c_size = m * ldc;
    var memory = try trial.Memory.init((@as(usize, a_size + b_size + 3 * c_size) * batches + 2 * n) * 4 + 4096);
    defer memory.deinit();
    var prng = std.Random.DefaultPrng.init(m *% 1000003 +% n *% 1009 +% k);
    const random = prng.random();
    var args = std.mem.zeroes(ops.Gemm);
    args.a = put(&memory, o.a, random, @as(usize, a_size) * batches);
    args.b = put(&memory, o.b, random, @as(usize, b_size) * batches);
    args.c = memory.reserve(u32, @as(usize, c_size) * batches);
    if (o.slope) args.slope = memory.reserve(u32, @as(usize, c_size) * batches);
    if (o.factor) args.factor = put(&memory, o.c, random, @as(usize, c_size) * batches);
    if (o.bias) args.bias = memory.normal(random, n);
    if (o.b == .i8) {
        args.scales = memory.normal(random, n);
        for (memory.slice(f32, args.scales, n)) |*scale| scale.* /= 74; // whole numbers of -128 .. 127 become about as large as all else
    }
    args.m = m;
    args.n = n;
    args.k = k;
    args.lda = lda;
    args.ldb = ldb;
    args.ldc = ldc;
    args.ta = @intFromBool(o.ta);
    args.tb = @intFromBool(o.tb);
    args.outer = o.outer;
    args.inner = o.inner;
    args.a_inner = a_size;
    args.a_outer = a_size * o.inner;
    args.b_inner = b_size;
    args.b_outer = if (o.shared_b) 0 else b_size * o.inner;
    args.c_inner = c_size;
    args.c_outer = c_size * o.inner;
    args.a_dtype = @intFromEnum(o.a);
    args.b_dtype = @intFromEnum(o.b);
    args.c_dtype = @intFromEnum(o.c);
    args.compute = @intFromEnum(o.compute);
    args.activation = @intFromEnum(o.activation);
    args.alpha = o.alpha;
    args.beta = o.beta;
    if (o.beta != 0) {
        // Only what lies in C: the gaps stay NaN.
        for (0..batches * m) |row| for (0..n) |j| {
            const x = random.floatNorm(f32);
            if (o.c == .f32) memory.slice(f32, args.c, row * ldc + n)[row * ldc + j] = x else memory.slice(u16, args.c, row * ldc + n)[row * ldc + j] = scalar.toBf16(x);
        };
    }
    const expected = try gpa.alloc(f64, @as(usize, batches) * m * n);
    defer gpa.free(expected);
    const slopes = try gpa.alloc(f64, expected.len);
    defer gpa.free(slopes);
    var at: usize = 0;
    for (0..o.outer) |outer| for (0..o.inner) |inner| for (0..m) |i| for (0..n) |j| {
        const a0 = outer * args.a_outer + inner * args.a_inner;
        const b0 = outer * args.b_outer + inner * args.b_inner;
        var sum: f64 = 0;
        for (0..k) |l| {
            var a = get(memory, o.a, args.a, a0 + (if (o.ta) l * lda + i else i * lda + l));
            var b = get(memory, o.b, args.b, b0 + (if (o.tb) j * ldb + l else l * ldb + j));
            if (o.compute == .bf16) {
                a = scalar.toF32(scalar.toBf16(a));
                b = scalar.toF32(scalar.toBf16(b));
            }
            sum += @as(f64, a) * b;
        }
        sum *= o.alpha;
        if (o.b == .i8) sum *= get(memory, .f32, args.scales, j);
        if (o.bias) sum += get(memory, .f32, args.bias, j);
        sum, slopes[at] = activate(o.activation, sum);
        const at_c = outer * args.c_outer + inner * args.c_inner + i * ldc + j;
        if (o.factor) sum *= get(memory, o.c, args.factor, at_c);
        if (o.beta != 0) sum += o.beta * @as(f64, get(memory, o.c, args.c, at_c));
        expected[at] = sum;
        at += 1;
    };
    const scale = (if (o.b == .i8) @as(f64, 3) else 1) * @sqrt(@as(f64, @floatFromInt(k + 1))) * @abs(o.alpha) + 1;
    const bound = (if (o.factor) @as(f64, 5) else 1) * scale * (if (o.c == .bf16) @as(f64, 0.01) else 1e-5);
    var buffer: [9]*const ops.Table = undefined;
    for (tables(&buffer)) |table| {
        var fresh = try memory.copy();
        defer fresh.deinit();
        @memcpy(fresh.bytes, memory.bytes);
        try trial.run(.gemm, args, fresh, table, 7);
        errdefer std.debug.print("m {d} n {d} k {d} lanes {d} {any}\n", .{ m, n, k, table.lanes, o });
        for ([_]ops.Ref{ args.c, args.slope }, [_][]f64{ expected, slopes }) |ref, wanted| {
            if (!ref.present()) continue;
            for (0..batches * m) |row| {
                for (0..n) |j| {
                    const x = get(fresh, o.c, ref, row * ldc + j);
                    if (!(@abs(x - wanted[row * n + j]) <= bound)) {
                        std.debug.print("row {d} column {d}: {d}, expected {d}\n", .{ row, j, x, wanted[row * n + j] });
                        return error.Wrong;
                    }
                }
                for (n..ldc) |j| try std.testing.expect(std.math.isNan(get(fresh, o.c, ref, row * ldc + j)));
            }
        }
    }
}

const layouts = [_]Options{ .{}, .{ .tb = true }, .{ .ta = true }, .{ .ta = true, .tb = true } };

test "gemm: every layout, sizes 0, 1, odd and at the edges of tiles" {
    for (layouts) |layout| {
        for ([_]u32{ 0, 1, 3, 5, 8, 9, 67 }) |m| {
            for ([_]u32{ 0, 1, 15, 16, 17, 33, 48, 65, 113 }) |n| {
                for ([_]u32{ 0, 1, 7, 33 }) |k| try check(m, n, k, layout);
            }
        }
    }
}

test "gemm: blocks and parts of k, several tiles, without padding" {
    for (layouts) |layout| {
        var o = layout;
        o.pad = 0;
        try check(130, 600, 401, o);
        try check(13, 20, 4099, o);
        try check(3, 1100, 700, o);
        try check(70, 1300, 33, o);
        try check(9, 800, 0, o);
        try check(400, 40, 30, o);
        o.beta = 1;
        try check(13, 20, 4099, o);
        o.compute = .bf16;
        try check(130, 1200, 401, o);
        try check(13, 20, 4099, o);
    }
    // B packed once for several m tiles, and A too; both with parts of k and blocks that end within a part.
    for (layouts) |layout| {
        for ([_]Dtype{ .f32, .bf16 }) |compute| {
            var o = layout;
            o.compute = compute;
            try check(530, 410, 790, o);
            try check(200, 20, 1, o);
            try check(100, 30, 2500, o);
        }
    }
    for ([_]Dtype{ .f32, .bf16 }) |compute| {
        try check(70, 401, 2500, .{ .ta = true, .compute = compute });
        for ([_]bool{ false, true }) |ta| try check(70, 790, 800, .{ .ta = ta, .tb = !ta, .compute = compute });
    }
}

test "gemm: alpha, beta, bias, activations with slopes, factors" {
    for ([_]u32{ 3, 21 }) |m| {
        for ([_]u32{ 40, 700 }) |k| {
            for ([_]f32{ 0, 1, -0.5 }) |beta| {
                for (std.enums.values(ops.Activation)) |activation| {
                    for (0..4) |bits| {
                        const slope = bits & 1 != 0 and activation != .none;
                        const bias = (bits + @intFromEnum(activation)) % 3 != 0;
                        for ([_]Dtype{ .f32, .bf16 }) |c| {
                            try check(m, 50, k, .{ .tb = true, .alpha = 0.25, .beta = beta, .activation = activation, .bias = bias, .slope = slope, .factor = bits & 2 != 0, .c = c });
                        }
                    }
                }
            }
        }
    }
    try check(21, 50, 0, .{ .beta = 2, .bias = true, .activation = .relu });
    try check(2, 50, 0, .{ .beta = 2, .bias = true, .activation = .relu });
    try check(21, 20, 4096, .{ .beta = 2, .bias = true, .slope = true, .activation = .silu, .factor = true });
    // Whole register tiles, blocks of k.
    for ([_]Options{ .{ .factor = true }, .{ .factor = true, .beta = 1 }, .{ .activation = .gelu, .slope = true, .bias = true } }) |o| try check(48, 96, 800, o);
}

test "gemm: bf16 operands and products in bf16, every layout" {
    for (layouts) |layout| {
        for ([_]Dtype{ .f32, .bf16 }) |a| {
            for ([_]Dtype{ .f32, .bf16 }) |b| {
                for ([_]Dtype{ .f32, .bf16 }) |compute| {
                    for ([_][3]u32{ .{ 1, 33, 65 }, .{ 3, 70, 31 }, .{ 9, 17, 33 }, .{ 66, 100, 130 }, .{ 24, 48, 32 } }) |size| {
                        var o = layout;
                        o.a = a;
                        o.b = b;
                        o.compute = compute;
                        try check(size[0], size[1], size[2], o);
                    }
                }
            }
        }
    }
}

test "gemm: weights of i8 with a scale for each row" {
    for ([_]bool{ false, true }) |ta| {
        for ([_]Dtype{ .f32, .bf16 }) |a| {
            for ([_][3]u32{ .{ 1, 33, 65 }, .{ 3, 70, 31 }, .{ 4, 17, 700 }, .{ 9, 17, 33 }, .{ 66, 200, 530 }, .{ 300, 48, 32 }, .{ 2, 40, 0 } }) |size| {
                var o: Options = .{ .ta = ta, .tb = true, .a = a, .b = .i8 };
                try check(size[0], size[1], size[2], o);
                o.bias = true;
                o.activation = .gelu;
                o.alpha = 0.5;
                o.outer = 2;
                o.shared_b = true;
                o.inner = 1;
                try check(size[0], size[1], size[2], o);
            }
        }
    }
}

test "gemm: two levels of batches, also with one B for all" {
    for (layouts) |layout| {
        for ([_]bool{ false, true }) |shared| {
            for ([_]Dtype{ .f32, .bf16 }) |compute| {
                var o = layout;
                o.outer = 3;
                o.inner = 2;
                o.shared_b = shared;
                o.compute = compute;
                o.beta = 1;
                try check(1, 20, 17, o);
                try check(19, 35, 18, o);
                try check(6, 530, 20, o);
                try check(6, 30, 1500, o);
                try check(110, 70, 20, o);
            }
        }
    }
    try check(5, 5, 5, .{ .outer = 0 });
}

test "gemm: NaN and infinity go through to their rows and columns only" {
    var buffer: [9]*const ops.Table = undefined;
    for (tables(&buffer)) |table| {
        for ([_]Dtype{ .f32, .bf16 }) |compute| {
            for (std.enums.values(ops.Activation)) |activation| {
                for ([_]u32{ 3, 21 }) |m| {
                    var memory = try trial.Memory.init(1 << 16);
                    defer memory.deinit();
                    const n = 37;
                    const k = 19;
                    var args = std.mem.zeroes(ops.Gemm);
                    args.a = memory.reserve(f32, m * k);
                    args.b = memory.reserve(f32, n * k);
                    args.c = memory.reserve(f32, m * n);
                    @memset(memory.slice(f32, args.a, m * k), 1);
                    @memset(memory.slice(f32, args.b, n * k), 1);
                    memory.slice(f32, args.a, m * k)[2 * k + 18] = std.math.nan(f32);
                    memory.slice(f32, args.b, n * k)[36 * k + 3] = std.math.inf(f32);
                    args.m = m;
                    args.n = n;
                    args.k = k;
                    args.lda = k;
                    args.ldb = k;
                    args.ldc = n;
                    args.tb = 1;
                    args.outer = 1;
                    args.inner = 1;
                    args.compute = @intFromEnum(compute);
                    args.activation = @intFromEnum(activation);
                    args.alpha = 1;
                    try trial.run(.gemm, args, memory, table, 3);
                    const c = memory.slice(f32, args.c, m * n);
                    for (0..m) |i| for (0..n) |j| {
                        const x = c[i * n + j];
                        if (i == 2) {
                            try std.testing.expect(std.math.isNan(x));
                        } else if (j == 36) {
                            try std.testing.expectEqual(if (activation == .sigmoid or activation == .tanh) 1 else std.math.inf(f32), x);
                        } else {
                            try std.testing.expectApproxEqRel(@as(f32, @floatCast(activate(activation, k)[0])), x, 1e-6);
                        }
                    };
                }
            }
        }
    }
}

test "gemm: f32 rounds to the nearest bf16, ties to even" {
    var buffer: [9]*const ops.Table = undefined;
    const ulp = 1.0 / 128.0; // of bf16 at 1
    const given = [_]f32{ 1 + 0.5 * ulp, 1 + 1.5 * ulp, 1 + 0.499 * ulp, 1 + 0.501 * ulp, -1 - 1.5 * ulp, 3.39e38, 65504, 1e-30 };
    const wanted = [_]f32{ 1, 1 + 2 * ulp, 1, 1 + ulp, -1 - 2 * ulp, scalar.toF32(0x7f7f), 65536, scalar.toF32(scalar.toBf16(1e-30)) };
    for (tables(&buffer)) |table| {
        for ([_]u32{ 1, 9 }) |m| {
            for ([_]bool{ false, true }) |in_a| {
                var memory = try trial.Memory.init(1 << 14);
                defer memory.deinit();
                var args = std.mem.zeroes(ops.Gemm);
                // in_a: (m, 1) of `given` by a 1; else a row of 1 by `given`. Also as the bf16 of C.
                args.m = m;
                args.n = if (in_a) 1 else given.len;
                args.k = 1;
                args.a = memory.reserve(f32, m);
                for (memory.slice(f32, args.a, m), 0..) |*x, i| x.* = if (in_a) given[i % given.len] else 1;
                args.b = if (in_a) memory.put(f32, &.{1}) else memory.put(f32, &given);
                args.lda = 1;
                args.ldb = args.n;
                args.ldc = args.n;
                args.outer = 1;
                args.inner = 1;
                args.alpha = 1;
                args.compute = @intFromEnum(Dtype.bf16);
                args.c = memory.reserve(f32, m * args.n);
                try trial.run(.gemm, args, memory, table, 3);
                for (memory.slice(f32, args.c, m * args.n), 0..) |x, i| try std.testing.expectEqual(wanted[i % given.len], x);
                args.compute = @intFromEnum(Dtype.f32);
                args.c_dtype = @intFromEnum(Dtype.bf16);
                args.c = memory.reserve(u16, m * args.n);
                try trial.run(.gemm, args, memory, table, 3);
                for (memory.slice(u16, args.c, m * args.n), 0..) |x, i| try std.testing.expectEqual(wanted[i % given.len], scalar.toF32(x));
            }
        }
    }
}

test "gemm: operands past the arena, overlapping rows and unknown flags are refused" {
    var memory = try trial.Memory.init(1 << 12);
    defer memory.deinit();
    const table = trial.tables()[0];
    var good = std.mem.zeroes(ops.Gemm);
    good.a = memory.reserve(f32, 6);
    good.b = memory.reserve(f32, 6);
    good.c = .{ .arena = 1, .at = (1 << 12) - 16 };
    good.m = 2;
    good.n = 2;
    good.k = 3;
    good.lda = 3;
    good.ldb = 2;
    good.ldc = 2;
    good.outer = 1;
    good.inner = 1;
    try trial.run(.gemm, good, memory, table, 1);
    const bad = .{
        .{ "c", error.BadShape, ops.Ref{ .arena = 1, .at = (1 << 12) - 12 } },
        .{ "ldc", error.BadShape, 1 },
        .{ "ldc", error.BadShape, 3 },
        .{ "lda", error.BadShape, 4000 },
        .{ "ldb", error.BadShape, 4_000_000_000 },
        .{ "k", error.BadShape, 4_000_000_000 },
        .{ "outer", error.BadArgument, 2 },
        .{ "ta", error.BadArgument, 2 },
        .{ "a_dtype", error.BadArgument, 2 },
        .{ "compute", error.BadArgument, 3 },
        .{ "activation", error.BadArgument, 6 },
        .{ "slope", error.BadArgument, good.c },
        .{ "factor", error.BadShape, ops.Ref{ .arena = 1, .at = (1 << 12) - 12 } },
        .{ "b", error.BadArgument, ops.Ref{} },
    };
    inline for (bad) |case| {
        var args = good;
        @field(args, case[0]) = case[2];
        try std.testing.expectError(case[1], trial.run(.gemm, args, memory, table, 1));
    }
}
