// XOR, the smallest problem that needs a hidden layer, learned by every optimizer of the library.
// Not a lesson in tuning: any of them does it. Run it with `npx bun examples/xor.ts`; read next: examples/spiral.ts.
import { functional as F, manualSeed, nn, optim, tensor } from "egg";

const x = tensor([[0, 0], [0, 1], [1, 0], [1, 1]]);
const y = tensor([[0], [1], [1], [0]]);

const optimizers: Record<string, (parameters: nn.Parameter[]) => optim.Optimizer> = {
  "SGD": (parameters) => new optim.SGD(parameters, { lr: 0.1 }),
  "SGD, momentum": (parameters) => new optim.SGD(parameters, { lr: 0.1, momentum: 0.9 }),
  "SGD, Nesterov": (parameters) => new optim.SGD(parameters, { lr: 0.1, momentum: 0.9, nesterov: true }),
  "Adam": (parameters) => new optim.Adam(parameters, { lr: 0.01 }),
  "AdamW": (parameters) => new optim.AdamW(parameters, { lr: 0.01 }),
  "Lion": (parameters) => new optim.Lion(parameters, { lr: 0.002 }),
};

for (const [name, make] of Object.entries(optimizers)) {
  manualSeed(1);
  const model = new nn.Sequential(new nn.Linear(2, 8, { activation: "tanh" }), new nn.Linear(8, 1));
  const optimizer = make(model.parameters());
  let loss = 0;
  for (let step = 0; step < 2000; step++) {
    optimizer.zeroGrad();
    const error = F.mseLoss(model.forward(x), y);
    error.backward();
    optimizer.step();
    loss = error.item();
  }
  const right = model.forward(x).greater(0.5).equal(y).mean().item();
  console.log(`${name.padEnd(14)} ${(100 * right).toFixed(0)} % right, loss ${loss.toExponential(1)}`);
  optimizer.release();
  model.release();
}
