/** Options that say what a training step is made of: train, compile --train and inspect --train share them. */
import { Command, InvalidArgumentError, Option } from 'commander';
import { UserError } from '../../ir/diagnostic.ts';
import { optimizerNamed } from '../../passes/train/named-optimizers.ts';
import type { CentralizationSpec, LossScaleSpec, LossSpec, OptimizerSpec, TrainOptions } from '../../passes/train/options.ts';
import { number, numbers, positive, wholeNumber } from '../options.ts';

export interface StepOptions {
  readonly loss?: string;
  readonly labelSmoothing?: number;
  readonly ignoreIndex?: number;
  readonly classWeights?: number[];
  readonly huberDelta?: number;
  readonly optimizer?: string;
  readonly momentum?: number;
  readonly dampening?: number;
  readonly nesterov?: boolean;
  readonly betas?: [number, number];
  readonly alpha?: number;
  readonly eps?: number;
  readonly trust?: number;
  readonly weightDecay?: number;
  readonly decayExclude?: string[];
  readonly gc?: true | 'all' | 'conv';
  readonly agc?: number;
  readonly agcExclude?: string[];
  readonly clipNorm?: number;
  readonly clipValue?: number;
  readonly ema?: number;
  readonly sam?: number;
  readonly freeze?: string[];
  readonly trainOnly?: string[];
  readonly batch?: number;
  readonly microBatch?: number;
  readonly allowBatchDependence?: boolean;
  readonly lossScale?: LossScaleSpec;
  readonly precision?: 'f32' | 'mixed';
}

const losses: Readonly<Record<string, LossSpec['kind']>> = { 'cross-entropy': 'crossEntropy', mse: 'mse', mae: 'mae', huber: 'huber', bce: 'binaryCrossEntropy' };

/** Adds the options to a command. */
export function withStepOptions(command: Command): Command {
  return command
    .option('--loss <name>', `${Object.keys(losses).join(', ')}, or output:NAME where the model computes its loss (default: cross-entropy)`)
    .option('--label-smoothing <share>', 'of cross-entropy', number)
    .option('--ignore-index <class>', 'targets of this class do not count, in cross-entropy', signed)
    .option('--class-weights <list>', 'a weight for each class, in cross-entropy', numbers)
    .option('--huber-delta <x>', 'where the huber loss turns linear (default: 1)', number)
    .option('--optimizer <name>', 'sgd, sgdw, adam, adamw, adagrad, rmsprop, lars, lamb, or SGD_GC, SGD_GCC, Adam_GCC, … (default: sgd)')
    .option('--momentum <m>', 'of sgd, sgdw, lars, rmsprop', number)
    .option('--dampening <d>', 'of sgd, sgdw, lars', number)
    .option('--nesterov', 'Nesterov momentum')
    .option('--betas <list>', 'two decay rates, of adam, adamw, lamb', betas)
    .option('--alpha <a>', 'decay rate of rmsprop', number)
    .option('--eps <e>', 'of the adaptive optimizers', number)
    .option('--trust <t>', 'of lars', number)
    .option('--weight-decay <w>', 'weight decay', number)
    .option('--decay-exclude <patterns>', 'parameters that do not decay: names, * standing for any text, separated by commas; may be repeated', patterns)
    .addOption(new Option('--gc [which]', 'gradient centralization, of all weights of rank above 1 or of convolutions alone').choices(['all', 'conv']))
    .option('--agc <lambda>', 'adaptive gradient clipping', number)
    .option('--agc-exclude <patterns>', 'parameters that it leaves (default: the weight of the last linear layer)', patterns)
    .option('--clip-norm <norm>', 'largest norm of all gradients together', number)
    .option('--clip-value <x>', 'largest magnitude of an element of a gradient', number)
    .option('--ema <share>', 'keep a moving average of the weights: this share of the old value', number)
    .option('--sam <radius>', 'sharpness-aware minimisation', number)
    .option('--loss-scale <factor>', 'multiply the loss by this before it is differentiated, and divide gradients by it: a number, or auto, which doubles after 2000 good steps and halves where a gradient overflows, skipping that step', lossScale)
    .addOption(new Option('--precision <which>', 'mixed: forward and backward pass store f16; parameters, statistics and moments stay f32').choices(['f32', 'mixed']))
    .option('--train-only <patterns>', 'the parameters that are trained (default: all float initializers but single numbers without a path as their name)', patterns)
    .option('--freeze <patterns>', 'parameters that keep their values', patterns)
    .option('--batch <n>', 'samples of a step (default: what the model has)', positive)
    .option('--micro-batch <n>', 'samples that are computed at a time', positive)
    .option('--allow-batch-dependence', 'let batch norms join the samples of a micro-batch alone: the step then differs from that of the whole batch');
}

/** Refuses options of a training step where none is asked for. */
export function refuseStepOptions(command: Command): void {
  const own = withStepOptions(new Command()).options.map((o) => o.attributeName());
  const given = command.options.find((o) => own.includes(o.attributeName()) && command.getOptionValueSource(o.attributeName()) === 'cli');
  if (given) throw new UserError(`${given.long} goes with --train`);
}

/** The options as a training step's. `soft`: targets are blends of classes. */
export function trainOptions(o: StepOptions, more: { readonly soft?: boolean; readonly gradients?: boolean } = {}): TrainOptions {
  if (o.allowBatchDependence && o.microBatch === undefined) throw new UserError('--allow-batch-dependence goes with --micro-batch');
  return {
    loss: lossOf(o, more.soft ?? false),
    optimizer: optimizerOf(o),
    ...(o.trainOnly && { only: o.trainOnly }),
    ...(o.freeze && { freeze: o.freeze }),
    ...(o.microBatch !== undefined && { microBatch: o.microBatch }),
    ...(o.lossScale && { lossScale: o.lossScale }),
    ...(o.precision && { precision: o.precision }),
    ...(o.allowBatchDependence && { joinWithinMicroBatch: true }),
    ...(more.gradients && { gradients: true }),
  };
}

function lossOf(o: StepOptions, soft: boolean): LossSpec {
  const name = o.loss ?? 'cross-entropy';
  const kind = losses[name];
  const refuse = (given: unknown, option: string, goesWith: string): void => {
    if (given !== undefined) throw new UserError(`${option} goes with --loss ${goesWith}, not with ${name}`);
  };
  if (kind !== 'crossEntropy') {
    refuse(o.labelSmoothing, '--label-smoothing', 'cross-entropy');
    refuse(o.ignoreIndex, '--ignore-index', 'cross-entropy');
    refuse(o.classWeights, '--class-weights', 'cross-entropy');
    if (soft) throw new UserError(`mixup and cutmix blend classes, which goes with --loss cross-entropy, not with ${name}`);
  }
  if (soft && o.ignoreIndex !== undefined) throw new UserError('mixup and cutmix blend classes, so no target is of one class alone: --ignore-index does not go with them');
  if (kind !== 'huber') refuse(o.huberDelta, '--huber-delta', 'huber');
  if (name.startsWith('output:')) return { kind: 'output', name: name.slice('output:'.length) };
  if (kind === undefined || kind === 'output') throw new UserError(`there is no loss ${JSON.stringify(name)}; there are ${Object.keys(losses).join(', ')} and output:NAME`);
  if (kind === 'crossEntropy') {
    return {
      kind,
      ...(o.labelSmoothing !== undefined && { labelSmoothing: o.labelSmoothing }),
      ...(o.ignoreIndex !== undefined && { ignoreIndex: o.ignoreIndex }),
      ...(o.classWeights && { classWeights: o.classWeights }),
      ...(soft && { target: 'probabilities' as const }),
    };
  }
  return kind === 'huber' && o.huberDelta !== undefined ? { kind, delta: o.huberDelta } : { kind };
}

/** Which optimizers each option of a rule goes with. */
const ruleOptions = {
  momentum: ['sgd', 'sgdw', 'lars', 'rmsprop'],
  dampening: ['sgd', 'sgdw', 'lars'],
  nesterov: ['sgd', 'sgdw', 'lars'],
  betas: ['adam', 'adamw', 'lamb'],
  alpha: ['rmsprop'],
  eps: ['adam', 'adamw', 'lamb', 'adagrad', 'rmsprop'],
  trust: ['lars'],
} as const;

function optimizerOf(o: StepOptions): OptimizerSpec {
  const named = optimizerNamed(o.optimizer ?? 'sgd');
  const rule: Record<string, unknown> = {};
  for (const [option, kinds] of Object.entries(ruleOptions)) {
    const value = o[option as keyof typeof ruleOptions];
    if (value === undefined) continue;
    if (!(kinds as readonly string[]).includes(named.kind)) throw new UserError(`--${option} goes with ${kinds.join(', ')}, not with ${o.optimizer ?? 'sgd'}`);
    rule[option] = value;
  }
  if (named.gc && o.gc !== undefined) throw new UserError(`${o.optimizer} centralizes gradients by its name; leave out --gc`);
  const gc: CentralizationSpec | undefined = named.gc ?? (o.gc === undefined ? undefined : o.gc === 'conv' ? { convOnly: true } : {});
  const spec = {
    ...named, ...rule,
    ...(gc && { gc }),
    ...(o.agc !== undefined && { agc: { lambda: o.agc, ...(o.agcExclude && { exclude: o.agcExclude }) } }),
    ...(o.weightDecay !== undefined && { weightDecay: o.weightDecay }),
    ...(o.decayExclude && { noDecay: o.decayExclude }),
    ...(o.clipNorm !== undefined && { clipNorm: o.clipNorm }),
    ...(o.clipValue !== undefined && { clipValue: o.clipValue }),
    ...(o.ema !== undefined && { ema: o.ema }),
    ...(o.sam !== undefined && { sam: o.sam }),
  };
  return spec;
}

const lossScale = (text: string): LossScaleSpec => {
  if (text === 'auto') return { kind: 'auto' };
  const factor = number(text);
  if (factor <= 0) throw new InvalidArgumentError('expected a positive number, or auto');
  return { kind: 'static', factor };
};

const betas = (text: string): [number, number] => {
  const list = numbers(text);
  if (list.length !== 2) throw new InvalidArgumentError('expected two numbers, as 0.9,0.999');
  return list as [number, number];
};

/** `features.*,head.bias`, collected where the option is repeated. */
const patterns = (text: string, before: readonly string[] = []): string[] => [...before, ...text.split(',')];

const signed = (text: string): number => (text.startsWith('-') ? -wholeNumber(text.slice(1)) : wholeNumber(text));
