// The library's door: `import { tensor, nn, optim } from "egg"`. What a Bun program may use, and nothing more.
// No code of its own. Read next: tensor.ts, functional.ts, program.ts.
/// <reference path="../native/embedded.d.ts" />
export { EggError } from "../errors.ts";
export { setDebug } from "./debug.ts";
export { flush, manualSeed, memory, named, trainingStep, useThreads } from "./device.ts";
export * as functional from "./functional.ts";
export { arange, cat, full, ones, rand, randn, stack, zeros } from "./make.ts";
export * as nn from "./nn.ts";
export * as optim from "./optim.ts";
export { capture, Program } from "./program.ts";
export * as schedules from "./schedules.ts";
export { noGrad } from "./tape.ts";
export { computeIn, Parameter, Tensor, tensor } from "./tensor.ts";
