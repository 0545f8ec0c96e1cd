// Reads the machine code of the kernel library: int8 training must hold no float arithmetic, baseline code nothing that an
// old CPU lacks, and the library must ask for nothing but threads. The checks are functions over objdump's text, so that
// the first test can show each of them fail. Not whether the kernels are right: kernels/int8/twins_test.zig.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { functions } from "../src/native/abi.ts";
import { tiers } from "../src/native/machine.ts";

const root = resolve(import.meta.dir, "..");
const zig = join(root, `node_modules/@zigc/${process.platform}-${process.arch}/bin/zig`);

/** Why this machine cannot check; null where it can. Any host builds the x86-64 library; reading it takes binutils. */
function whyNot(): string | null {
  if (Bun.which("objdump") === null) return "no objdump on PATH";
  const run = Bun.spawnSync(["objdump", "-i"]).stdout.toString();
  if (!run.includes("GNU Binutils")) return "this objdump is not the one of GNU binutils";
  return run.includes("elf64-x86-64") ? null : "this objdump does not read x86-64";
}

/** A function in the machine code. `unit` is the object it was compiled in: "egg", "tier_avx512vnni", "compiler_rt". */
interface Routine {
  name: string;
  unit: string;
  /** As objdump writes them, without prefixes such as `rep`. */
  instructions: string[];
}

/** Functions by `objdump -d` and the objects they came from by the file symbols of `objdump -t`. */
function routines(disassembly: string, symbols: string): Routine[] {
  const units = new Map<number, string>();
  let unit = "";
  for (const line of symbols.split("\n")) {
    const [, address, flags, name] = /^([0-9a-f]{16}) (.{7}) \S+\t[0-9a-f]{16} +(.*)$/.exec(line) ?? [];
    if (flags === undefined || flags[0] !== "l") continue; // global symbols stand behind all objects; their local twins say where they belong
    if (flags.includes("df")) unit = name!;
    else if (flags.endsWith("F")) units.set(parseInt(address!, 16), unit);
  }
  const found: Routine[] = [];
  for (const line of disassembly.split("\n")) {
    const [, address, name] = /^([0-9a-f]+) <(.+)>:$/.exec(line) ?? [];
    if (name !== undefined) found.push({ name, unit: units.get(parseInt(address!, 16)) ?? "unknown", instructions: [] });
    const [, text] = /^ +[0-9a-f]+:\t(.*)$/.exec(line) ?? [];
    if (text !== undefined) found.at(-1)?.instructions.push(text.replace(/^(?:(?:rep\w*|lock|data16|addr32|notrack|bnd|[cdefgs]s|rex\S*|\{\w+\}) +)+/, "").trim());
  }
  return found;
}

const mnemonic = (instruction: string): string => instruction.split(/\s/, 1)[0]!;

/**
 * Float arithmetic, comparison or conversion. Moves, logic and shuffles of the float domain are none: compilers choose
 * them for integers too. What this does not know by name counts as arithmetic.
 */
function isFloatWork(instruction: string): boolean {
  const name = mnemonic(instruction);
  if (/^v?p/.test(name)) return false; // packed integers, push, pop, prefetch; vpermps and the like only move
  if (/^v?cvt|^f(?!nop|ence)|^vf|mxcsr|bf16/.test(name)) return true; // conversions, x87, fused multiply-add
  if (!/(?:[ps][sdh])$/.test(name)) return false;
  return !/^v?(?:mov\w*|and|andn|or|xor|blend[mv]?|shuf|unpck[lh]|broadcast|insert|extract|compress|expand|maskmov|gather\w*|scatter\w*|test)[ps][sd]$/.test(name);
}

/** More than x86-64's baseline (SSE2): anything VEX or EVEX, wide or mask registers, SSE3 and later, BMI, POPCNT, LZCNT. */
function isBeyondBaseline(instruction: string): boolean {
  const name = mnemonic(instruction);
  if (/%[yz]mm|%xmm(?:1[6-9]|2\d|3[01])|%k[0-7]/.test(instruction) || /^v(?!err|erw)/.test(name)) return true;
  if (/^(?:andn|bextr|bls(?:i|r|msk)|bzhi|mulx|p(?:dep|ext)|rorx|sarx|sh[lr]x|popcnt|lzcnt|movbe|crc32|ad[co]x)[lqw]?$/.test(name)) return true;
  return /^(?:pshufb|pabs.|pmaddubsw|palignr|psign.|pmulhrsw|ph(?:add|sub)|pblend|pmov[sz]x|pmull?d(?:q)?$|pm(?:in|ax)(?:sb|sd|ud|uw)|p(?:ins|ext)r[bdq]|round|ptest|dpp|blend|packusdw|pcmp(?:eqq|gtq|.str)|aes|sha|pclmul|addsub|hadd|hsub|mov(?:d|sh|sl)dup|lddqu|insertps|extractps|mpsad|phmin|movntdqa|gf2p8)/.test(name);
}

/** What only AVX-512 has: no tier without it in its name may use it. */
const isAvx512 = (instruction: string): boolean => /%zmm|%[xy]mm(?:1[6-9]|2\d|3[01])|%k[0-7]/.test(instruction);

const isTier = (routine: Routine): boolean => routine.unit.startsWith("tier_");
/** All of the int8 and context code but the evaluations, whose softmax is exact, and the exports, which tell results as floats. A tier's object holds the float kernels too. */
const isTraining = (routine: Routine): boolean => (isTier(routine) && !routine.name.startsWith("float.")) || /^(?:int8\.(?!evaluate\.)|contexts\.(?!evaluate\.|exports\.))/.test(routine.name);

function report(routine: Routine, what: string, isWrong: (instruction: string) => boolean): string[] {
  return routine.instructions.filter(isWrong).map((instruction) => `${routine.name} (${routine.unit}): ${what}: ${instruction}`);
}

/** Float work in the training path, and in whatever it calls or jumps to by name. */
function floatProblems(all: readonly Routine[]): string[] {
  const byName = new Map(all.map((routine) => [routine.name, routine]));
  const reached = new Set(all.filter(isTraining));
  for (const routine of reached) {
    for (const instruction of routine.instructions) {
      const target = byName.get(/^(?:call|j\w+)\s.*<([^+]+)>$/.exec(instruction)?.[1] ?? "");
      if (target !== undefined) reached.add(target); // a Set's loop goes on to what is added meanwhile
    }
  }
  return [...reached].flatMap((routine) => report(routine, "float work in the int8 path", isFloatWork));
}

/** Instructions that the CPU may lack where the function is called; and any that objdump could not read. */
function levelProblems(all: readonly Routine[]): string[] {
  return all.flatMap((routine) => [
    ...report(routine, "not readable", (instruction) => instruction.includes("(bad)")),
    ...(isTier(routine) ? [] : report(routine, "beyond the x86-64 baseline", isBeyondBaseline)),
    ...(isTier(routine) && !routine.unit.includes("avx512") ? report(routine, "AVX-512 in another tier", isAvx512) : []),
  ]);
}

/** Kernels ("int8.matmul") that are not there as functions of their own: then the checks above would have looked at nothing. */
function missingKernels(all: readonly Routine[], kernels: readonly string[]): string[] {
  const units = new Set(all.filter(isTier).map(({ unit }) => unit));
  const wanted = [
    ...kernels.map((kernel) => ({ unit: "egg", name: kernel.replace(".", ".scalar.") })),
    ...[...units].flatMap((unit) => kernels.map((kernel) => ({ unit, name: kernel.slice(kernel.indexOf(".")) }))),
  ];
  const missing = wanted.filter(({ unit, name }) => !all.some((routine) => routine.unit === unit && routine.name.endsWith(name) && routine.instructions.length > 0));
  for (const name of ["int8.forward.", "int8.eggroll.", "contexts.eggroll."]) if (!all.some((routine) => routine.name.startsWith(name))) missing.push({ unit: "egg", name });
  return missing.map(({ unit, name }) => `${unit}: no function ${name}`);
}

/** What the host process must bring: threads, and the page size. */
const lent = new Set(["pthread_create", "pthread_join", "getauxval"]);

/** Asks of the library and offers of it, by `objdump -T -p`, against the ABI's table. */
function linkProblems(dynamic: string, offered: readonly string[]): string[] {
  const problems = [...dynamic.matchAll(/^ +NEEDED +(\S+)$/gm)].map(([, name]) => `needs ${name}`);
  const exported = new Set<string>();
  for (const [, flags, section, name] of dynamic.matchAll(/^[0-9a-f]{16} (.{7}) (\S+)\t[0-9a-f]{16} +(?:.*? )?(\S+)$/gm)) {
    if (section !== "*UND*") exported.add(name!);
    else if (!lent.has(name!) && !flags!.includes("w")) problems.push(`asks the host for ${name}`);
  }
  for (const name of exported) if (!offered.includes(name)) problems.push(`exports ${name}, which the ABI does not list`);
  for (const name of offered) if (!exported.has(name)) problems.push(`does not export ${name}`);
  return problems;
}

/** The kernels of the tables that every tier fills, by their names in Zig: "int8.matmul", "contexts.position". */
function kernelNames(): string[] {
  return ["int8", "contexts"].flatMap((folder) => {
    const text = readFileSync(join(root, `kernels/${folder}/scalar.zig`), "utf8");
    const [, body = ""] = /pub const table: ops\.Table = \.\{([^}]*)\}/.exec(text) ?? [];
    return [...body.matchAll(/= &(\w+)(?=,| $)/g)].map(([, name]) => `${folder}.${name}`);
  });
}

describe("the checks can fail", () => {
  test.each([
    // instruction, float work, beyond the baseline
    ["vpdpbusd %zmm1,%zmm2,%zmm3", false, true],
    ["vpmaxsd %xmm1,%xmm2,%xmm3", false, true],
    ["vpermps %ymm1,%ymm2,%ymm3", false, true],
    ["vbroadcastss (%rdi),%ymm0", false, true],
    ["vinserti64x4 $0x1,%ymm1,%zmm0,%zmm0", false, true],
    ["movaps %xmm0,(%rdi)", false, false],
    ["xorps %xmm0,%xmm0", false, false],
    ["shufps $0x88,%xmm1,%xmm0", false, false],
    ["push %rbp", false, false],
    ["paddd %xmm1,%xmm0", false, false],
    ["addss %xmm1,%xmm0", true, false],
    ["vmulps %ymm1,%ymm2,%ymm3", true, true],
    ["vfmadd231ps %zmm1,%zmm2,%zmm3", true, true],
    ["cvtsi2sd %rax,%xmm0", true, false],
    ["vcvtdq2ps %ymm0,%ymm0", true, true],
    ["ucomisd %xmm1,%xmm0", true, false],
    ["vcmpltps %ymm1,%ymm2,%ymm3", true, true],
    ["sqrtsd %xmm0,%xmm0", true, false],
    ["vrcp14ps %zmm0,%zmm1", true, true],
    ["vdpbf16ps %zmm0,%zmm1,%zmm2", true, true],
    ["fld1", true, false],
    ["kmovq %k1,%rax", false, true],
    ["movdqa %xmm1,%xmm0", false, false],
    ["pshufb %xmm1,%xmm0", false, true],
    ["pmulld %xmm1,%xmm0", false, true],
    ["pmuludq %xmm1,%xmm0", false, false],
    ["pextrw $0x1,%xmm0,%eax", false, false],
    ["shlx %rax,%rbx,%rcx", false, true],
    ["popcnt %rax,%rbx", false, true],
    ["shl $0x3,%rax", false, false],
  ])("%s", (instruction, float, beyond) => {
    expect([isFloatWork(instruction), isBeyondBaseline(instruction)]).toEqual([float, beyond]);
  });

  const file = (name: string) => `0000000000000000 l    df *ABS*\t0000000000000000 ${name}\n`;
  const symbol = (address: number, name: string) => `${address.toString(16).padStart(16, "0")} l     F .text\t0000000000000010 ${name}\n`;
  const code = (address: number, name: string, ...lines: string[]) =>
    `\n${address.toString(16).padStart(16, "0")} <${name}>:\n${lines.map((line, i) => `    ${(address + i).toString(16)}:\t${line}\n`).join("")}`;
  const symbols = file("tier_avx2") + symbol(0x100, "int8.vector.Kernels(x).add") + file("egg") + symbol(0x200, "int8.eggroll.Trainer.run") + symbol(0x300, "helper") + symbol(0x400, "int8.evaluate.run") + file("tier_neon") + symbol(0x500, "float.vector.add");

  test("a whole listing", () => {
    const all = routines(
      code(0x100, "int8.vector.Kernels(x).add", "{vex} vpdpbusd %ymm0,%ymm1,%ymm2", "vaddps %ymm0,%ymm1,%ymm2", "vpaddd %zmm0,%zmm1,%zmm2") +
        code(0x200, "int8.eggroll.Trainer.run", "rep stos %al,%es:(%rdi)", "call   300 <helper>", "jmp    201 <int8.eggroll.Trainer.run+0x1>") +
        code(0x300, "helper", "mulsd  %xmm1,%xmm0", "vzeroupper") +
        code(0x400, "int8.evaluate.run", "addsd  %xmm1,%xmm0", "(bad)") +
        code(0x500, "float.vector.add", "addps  %xmm1,%xmm0"),
      symbols,
    );
    expect(all.map(({ unit, instructions }) => `${unit} ${instructions.length}`)).toEqual(["tier_avx2 3", "egg 3", "egg 2", "egg 2", "tier_neon 1"]);
    expect(floatProblems(all)).toEqual([
      "int8.vector.Kernels(x).add (tier_avx2): float work in the int8 path: vaddps %ymm0,%ymm1,%ymm2",
      "helper (egg): float work in the int8 path: mulsd  %xmm1,%xmm0",
    ]);
    expect(levelProblems(all)).toEqual([
      "int8.vector.Kernels(x).add (tier_avx2): AVX-512 in another tier: vpaddd %zmm0,%zmm1,%zmm2",
      "helper (egg): beyond the x86-64 baseline: vzeroupper",
      "int8.evaluate.run (egg): not readable: (bad)",
    ]);
    expect(missingKernels(all, ["int8.add"])).toEqual(["egg: no function int8.scalar.add", "egg: no function int8.forward.", "egg: no function contexts.eggroll."]);
  });

  test("a library that asks for too much and offers the wrong names", () => {
    const line = (flags: string, section: string, name: string) => `${"0".repeat(16)} ${flags} ${section}\t${"0".repeat(16)} ${name}\n`;
    const dynamic =
      line("     D ", "*UND*", "pthread_create") + line("     DF", "*UND*", " (GLIBC_2.2.5) malloc") + line("g    DF", ".text", "egg_open") + line("g    DF", ".text", "memcpy") + "  NEEDED               libc.so.6\n";
    expect(linkProblems(dynamic, ["egg_open", "egg_wait"])).toEqual([
      "needs libc.so.6", "asks the host for malloc", "exports memcpy, which the ABI does not list", "does not export egg_wait",
    ]);
  });
});

const reason = whyNot();
if (reason !== null) console.log(`the machine code is not checked: ${reason}`);

describe.skipIf(reason !== null)("the x86-64 library", () => {
  let folder = "";
  let all: Routine[] = [];
  let dynamic = "";

  function run(command: string[]): string {
    const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: root, stdin: "ignore" });
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
    return stdout.toString();
  }

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "egg-integers-"));
    run([zig, "build", "-Doptimize=ReleaseFast", "-Dstrip=false", "-Dtarget=x86_64-linux-gnu.2.17", "-p", folder]);
    const library = join(folder, "lib/libegg.so");
    all = routines(run(["objdump", "-d", "-w", "--no-show-raw-insn", library]), run(["objdump", "-t", library]));
    dynamic = run(["objdump", "-T", "-p", library]);
  }, 300_000);

  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("holds every kernel of every tier as a function, and no tier that TypeScript does not know", () => {
    expect(kernelNames()).toEqual(expect.arrayContaining(["int8.matmul", "contexts.group", "contexts.position", "contexts.move"]));
    expect(missingKernels(all, kernelNames())).toEqual([]);
    const built = [...new Set(all.filter(isTier).map(({ unit }) => unit.slice("tier_".length)))];
    expect(built).toContain("avx512vnni");
    expect(tiers.map(({ name }): string => name)).toEqual(expect.arrayContaining(built));
    const instructions = all.filter(isTraining).reduce((sum, routine) => sum + routine.instructions.length, 0);
    console.log(`int8 path: ${all.filter(isTraining).length} functions, ${instructions} instructions, tiers ${built.join(", ")}`);
  });

  test("trains without float arithmetic", () => {
    expect(floatProblems(all)).toEqual([]);
  });

  test("the evaluation outside the int8 path does hold floats, so the check above sees them", () => {
    for (const folder of ["int8", "contexts"]) {
      const exact = all.filter(({ name }) => name.startsWith(`${folder}.evaluate.`));
      expect(exact.flatMap((routine) => report(routine, "float", isFloatWork)).length).toBeGreaterThan(0);
    }
  });

  test("keeps what an old CPU lacks inside the tiers", () => {
    expect(levelProblems(all)).toEqual([]);
    const wide = all.filter((routine) => routine.instructions.some(isBeyondBaseline));
    expect(wide.length).toBeGreaterThan(0);
  });

  test("asks the host for threads only, and offers exactly the ABI", () => {
    expect(linkProblems(dynamic, Object.keys(functions))).toEqual([]);
  });
});
