// Knobs that only some rules have: where they are, where they are refused, and what does not fit with their rule.
// Not the knobs of all rules and not the layers (config.test.ts). Read next: src/config/knobs.ts, bounds.ts.
import { beforeEach, describe, expect, test } from "bun:test";
import { loadConfig } from "../src/config/load.ts";
import { EggError } from "../src/errors.ts";

beforeEach(() => {
  delete process.env["EGG_SET"];
});

function problems(load: () => unknown): string[] {
  try {
    load();
  } catch (error) {
    if (error instanceof EggError && error.kind === "usage") return error.message.split("\n");
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("knobs of a rule", () => {
  test("are there with their rule only, with the values that the preset names", () => {
    const { config, sources } = loadConfig({ sets: ["preset=nano-egg", "trainer.use_clt=false", "trainer.alpha=.25"] });
    expect(config.trainer).toEqual({
      type: "eggroll-int8", rule: "nano-egg", population: 1024, sequence: 100, sigma_shift: 4, alpha: 0.25, alpha_decay_timestep: 1000, group_size: 2, use_clt: false,
      noise_reuse: 1, num_perturbations: 0,
    });
    expect(config.run).toMatchObject({ steps: 1000, seed: 0 });
    expect(config.model).toMatchObject({ hidden: 256, layers: 6 });
    expect(sources.get("trainer.use_clt")).toBe("--set trainer.use_clt=false");
    expect(sources.has("trainer.threshold")).toBe(false);
    // The rule alone, without its preset: what only the rule has comes from the table.
    expect(loadConfig({ sets: ["preset=egg.c", "trainer.rule=nano-egg"] }).config.trainer).toMatchObject({ rule: "nano-egg", population: 128, alpha: 4, group_size: 2 });
  });

  test("are refused with another rule, and what does not fit is refused by name", () => {
    expect(problems(() => loadConfig({ sets: ["preset=egg.c", "trainer.alpha=2"] }))).toEqual(['--set trainer.alpha=2: only for trainer.rule nano-egg, and trainer.rule is "egg.c"']);
    expect(problems(() => loadConfig({ sets: ["preset=nano-egg", "trainer.threshold=2"] }))).toEqual(['--set trainer.threshold=2: only for trainer.rule egg.c, and trainer.rule is "nano-egg"']);
    expect(problems(() => loadConfig({ sets: ["trainer.rule=nano", "trainer.alpha=2"] }))).toEqual(['--set trainer.rule=nano: found "nano", allowed "egg", "egg.c" or "nano-egg"']);
    const nano = (...sets: string[]) => problems(() => loadConfig({ sets: ["preset=nano-egg", ...sets] }));
    expect(nano("trainer.alpha=0")).toEqual(["--set trainer.alpha=0: found 0, allowed a number from 1e-9 to 64"]);
    expect(nano("trainer.sigma_shift=9")).toEqual(["--set trainer.sigma_shift=9: found 9, allowed a whole number from 0 to 8"]);
    expect(nano("trainer.group_size=3")[0]).toBe("--set trainer.group_size=3: found 3, allowed an even number from 2 to 1048576");
    expect(nano("trainer.group_size=6")).toEqual(["--set trainer.group_size=6: found 6, which does not divide trainer.population 1024"]);
    expect(nano("trainer.population=10", "trainer.group_size=4")).toEqual(["--set trainer.group_size=4: found 4, which does not divide trainer.population 10"]);
    expect(nano("trainer.use_clt=1")).toEqual(['--set trainer.use_clt=1: found "1", allowed true or false']);
    expect(nano("trainer.num_perturbations=8")).toEqual(["--set trainer.num_perturbations=8: found 8, allowed only 0"]);
    expect(nano("trainer.rank=2", "trainer.fast_fitness=false")).toEqual([
      "--set trainer.rank=2: found, but perturbations are of rank 1: nano-egg's update for a higher rank is broken in the reference",
      "--set trainer.fast_fitness=false: found, but nano-egg's fitness is always the sign of a pair's difference: its other way is broken in the reference",
    ]);
    expect(nano("model.hidden=576")).toEqual([
      "--set model.hidden=576: found 576, but the widest product reaches 4 x 576 x 127 x 86 x 86 = 2164128768, more than the 2147483647 that 32 bits hold",
    ]);
    expect(nano("trainer.population=580716")).toEqual([
      "--set trainer.population=580716: found 580716, but the votes for a weight reach 580716 / 2 x 86 x 86 = 2147487768, more than the 2147483647 that 32 bits hold",
    ]);
    expect(loadConfig({ sets: ["preset=nano-egg", "model.hidden=560", "trainer.population=580714"] }).config.model.hidden).toBe(560);
  });
});
