/** What a training step is made of, as plain data. */

/** How far the model's output is from the target; every loss is a mean over samples (and positions), weighted where weights are given. */
export type LossSpec =
  | {
      readonly kind: 'crossEntropy';
      /** The share of the target's mass that is spread evenly over all classes. */
      readonly labelSmoothing?: number;
      /** Targets of this class count nothing. For class indices alone. */
      readonly ignoreIndex?: number;
      /** A weight for each class. */
      readonly classWeights?: readonly number[];
      /** `indices` (i64, one a position) or `probabilities` (of the output's type). Class indices unless given. */
      readonly target?: 'indices' | 'probabilities';
      /** The output's axis of classes; 1 unless given. */
      readonly axis?: number;
    }
  | { readonly kind: 'mse' }
  | { readonly kind: 'mae' }
  /** Quadratic up to `delta` (1 unless given), linear beyond. */
  | { readonly kind: 'huber'; readonly delta?: number }
  /** Of logits, against probabilities. */
  | { readonly kind: 'binaryCrossEntropy' }
  /** The model computes its loss itself: a scalar output. */
  | { readonly kind: 'output'; readonly name: string };

/** The rule of an update. Numbers that are left out have the defaults of PyTorch (LARS and LAMB: of their papers). */
export type RuleSpec =
  | { readonly kind: 'sgd' | 'sgdw'; readonly momentum?: number; readonly dampening?: number; readonly nesterov?: boolean }
  | { readonly kind: 'lars'; readonly momentum?: number; readonly dampening?: number; readonly nesterov?: boolean; readonly trust?: number }
  | { readonly kind: 'adam' | 'adamw'; readonly betas?: readonly [number, number]; readonly eps?: number; readonly rule?: 'standard' | 'gc-author' }
  | { readonly kind: 'lamb'; readonly betas?: readonly [number, number]; readonly eps?: number }
  | { readonly kind: 'adagrad'; readonly eps?: number; readonly lrDecay?: number }
  | { readonly kind: 'rmsprop'; readonly alpha?: number; readonly eps?: number; readonly momentum?: number };

/** Gradient centralization (Yong et al., arXiv 2004.01461): each unit of a weight moves by a direction of mean zero. */
export interface CentralizationSpec {
  /** Only weights of convolutions. */
  readonly convOnly?: boolean;
  /** Only parameters of at least this rank: 4 for the author's GCC, which leaves one-dimensional convolutions out. */
  readonly minRank?: number;
  /** Before the moments (the default), or of the direction that comes out of them. */
  readonly before?: boolean;
}

/** Adaptive gradient clipping (Brock et al., arXiv 2102.06171): the norm of each unit's gradient stays below `lambda` times that of its weight. */
export interface AgcSpec {
  readonly lambda: number;
  /** Weights of a smaller norm count as this norm; 1e-3 unless given. */
  readonly eps?: number;
  /** Patterns of parameters that are not clipped; the weight of the last linear layer unless given. */
  readonly exclude?: readonly string[];
}

/** An optimizer and what surrounds it. Patterns name parameters, `*` standing for any text. */
export type OptimizerSpec = RuleSpec & {
  readonly weightDecay?: number;
  /** Patterns of parameters that do not decay. */
  readonly noDecay?: readonly string[];
  /** Largest norm of all gradients together. */
  readonly clipNorm?: number;
  /** Largest magnitude of an element of a gradient. */
  readonly clipValue?: number;
  readonly agc?: AgcSpec;
  readonly gc?: CentralizationSpec;
  /** Share of the old value in the moving average of each parameter. */
  readonly ema?: number;
  /** Sharpness-aware minimisation (Foret et al., arXiv 2010.01412): gradients are taken where a step of this length uphill leads. */
  readonly sam?: number;
};

/**
 * The factor that the loss is multiplied by before it is differentiated, and gradients are divided by: small gradients then stay above what f16 can hold. `auto` finds it: it doubles after `every` steps
 * (2000) whose gradients were finite, and halves where one was not, in which case the step changes nothing; it starts at `initial` (2^16).
 */
export type LossScaleSpec = { readonly kind: 'static'; readonly factor: number } | { readonly kind: 'auto'; readonly initial?: number; readonly every?: number };

/** What is trained, and how. */
export interface TrainOptions {
  readonly loss: LossSpec;
  readonly optimizer: OptimizerSpec;
  /** The output that the loss judges; the model's first one unless given. */
  readonly output?: string;
  /** Patterns of the parameters that are trained, in place of all float weights. A single number (an initializer of rank 0) counts without them only where its name is a path with dots. */
  readonly only?: readonly string[];
  /** Patterns of parameters that keep their values. */
  readonly freeze?: readonly string[];
  /** Units of weights that the user names, in place of the inferred ones. */
  readonly units?: Readonly<Record<string, { readonly shape?: readonly number[]; readonly axes: readonly number[] }>>;
  /** Samples of a batch, where the imported graph has another number: it is rebound. */
  readonly batch?: number;
  /** Samples that are computed at a time: gradients add up over the batch, and the update comes after all of it. */
  readonly microBatch?: number;
  /** Lets batch norms join the samples of a micro-batch alone, in place of refusing micro-batches. */
  readonly joinWithinMicroBatch?: boolean;
  readonly lossScale?: LossScaleSpec;
  /**
   * `mixed`: forward and backward pass store tensors as f16 (contractions add up in f32, statistics, sums and the loss are f32), while parameters, statistics and moments stay f32. f32 unless given.
   */
  readonly precision?: 'f32' | 'mixed';
  /** The step also returns each parameter's gradient, as `name.grad`. */
  readonly gradients?: boolean;
}

/** Whether a name matches one of the patterns; `*` stands for any text, also none. */
export function matches(name: string, patterns: readonly string[]): boolean {
  return patterns.some((p) => new RegExp(`^${p.split('*').map(escape).join('.*')}$`, 's').test(name));
}

const escape = (text: string): string => text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
