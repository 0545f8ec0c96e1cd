// Builds the kernel library: one baseline shared library, plus one object for each CPU tier compiled from the
// same source with that tier's features. Not the executable: scripts/build.ts embeds this library and compiles it.
// Read next: kernels/egg.zig (what the library exports), kernels/README.md (how to add a kernel).
const std = @import("std");

const x86 = std.Target.x86;
const aarch64 = std.Target.aarch64;

/// A CPU tier: the features its object may use. kernels/cpu.zig checks the same list at run time.
const Tier = struct { name: []const u8, features: std.Target.Cpu.Feature.Set };

const avx2_features = [_]x86.Feature{ .avx2, .bmi, .bmi2, .lzcnt, .popcnt, .fma };
const x86_tiers = [_]Tier{
    .{ .name = "avx2", .features = x86.featureSet(&avx2_features) },
    .{ .name = "avxvnni", .features = x86.featureSet(&(avx2_features ++ .{.avxvnni})) },
    .{ .name = "avx512vnni", .features = x86.featureSet(&(avx2_features ++ .{ .avx512f, .avx512bw, .avx512vl, .avx512dq, .avx512cd, .avx512vnni })) },
};
const aarch64_tiers = [_]Tier{
    .{ .name = "neon", .features = aarch64.featureSet(&.{.neon}) },
    .{ .name = "dotprod", .features = aarch64.featureSet(&.{ .neon, .dotprod }) },
};

pub fn build(b: *std.Build) void {
    const target = b.standardTargetOptions(.{});
    const optimize = b.option(std.builtin.OptimizeMode, "optimize", "Debug checks or speed (default: ReleaseSafe)") orelse .ReleaseSafe;
    const strip = b.option(bool, "strip", "Leave out symbol names (default: true)") orelse true;

    // Never the native CPU: the library decides at run time what this machine has.
    var query = target.query;
    query.cpu_model = .baseline;
    // An old glibc, so that the library loads everywhere; it needs no libc of its own.
    if (target.result.os.tag == .linux and target.result.abi.isGnu()) {
        query.glibc_version = .{ .major = 2, .minor = 17, .patch = 0 };
    }
    const baseline = b.resolveTargetQuery(query);

    const root = b.createModule(.{
        .root_source_file = b.path("kernels/egg.zig"),
        .target = baseline,
        .optimize = optimize,
        .strip = strip,
        .pic = true,
        .link_libc = false,
    });
    // The tests are a program of their own: nobody lends them pthreads, so they bring a libc.
    const test_root = b.createModule(.{
        .root_source_file = b.path("kernels/egg.zig"),
        .target = baseline,
        .optimize = optimize,
        .link_libc = true,
    });
    for ([_][]const u8{ "egg-c.json", "nano-egg.json", "contexts.json" }) |name| {
        test_root.addAnonymousImport(name, .{ .root_source_file = b.path(b.fmt("tests/golden/{s}", .{name})) });
    }
    const tiers: []const Tier = switch (target.result.cpu.arch) {
        .x86_64 => &x86_tiers,
        .aarch64 => &aarch64_tiers,
        else => &.{},
    };
    for (tiers) |tier| {
        var tier_query = query;
        tier_query.cpu_features_add.addFeatureSet(tier.features);
        const options = b.addOptions();
        options.addOption([]const u8, "name", tier.name);
        const module = b.createModule(.{
            .root_source_file = b.path("kernels/tier.zig"),
            .target = b.resolveTargetQuery(tier_query),
            .optimize = optimize,
            .strip = strip,
            .pic = true,
            .link_libc = false,
        });
        module.addOptions("tier", options);
        const object = b.addObject(.{ .name = b.fmt("tier_{s}", .{tier.name}), .root_module = module, .use_llvm = true });
        // Runtime helpers compiled for this tier must never be the ones the whole library uses.
        object.bundle_compiler_rt = false;
        object.bundle_ubsan_rt = false;
        root.addObject(object);
        test_root.addObject(object);
    }

    const library = b.addLibrary(.{ .name = "egg", .linkage = .dynamic, .root_module = root, .use_llvm = true });
    b.installArtifact(library);

    const filters = b.option([]const []const u8, "filter", "Run only the tests whose names contain this") orelse &.{};
    const tests = b.addTest(.{ .root_module = test_root, .use_llvm = true, .filters = filters });
    const run = b.addRunArtifact(tests);
    run.skip_foreign_checks = true;
    b.step("test", "Run the kernels' unit tests").dependOn(&run.step);
}
