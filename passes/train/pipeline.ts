/** The passes that make a training step of a forward graph, in order. */
import { Unsupported, UserError } from '../../ir/diagnostic.ts';
import type { Graph } from '../../ir/graph.ts';
import type { Target } from '../../ir/tile.ts';
import { eliminateCommonSubexpressions } from '../eliminate-common-subexpressions.ts';
import { eliminateDeadCode } from '../eliminate-dead-code.ts';
import { foldConstants } from '../fold-constants.ts';
import { joinAffine } from '../join-affine.ts';
import { findNorms, placeOf } from '../norm/find-norms.ts';
import { runPipeline, type Pass, type PipelineOptions } from '../pipeline.ts';
import { simplify } from '../simplify.ts';
import { storeHalf } from '../tile/store-half.ts';
import { accumulateGradients } from './accumulate-gradients.ts';
import { addLoss } from './add-loss.ts';
import { averageWeights } from './average-weights.ts';
import { centralizeGradients } from './centralize-gradients.ts';
import { describe } from './backward.ts';
import { clipGradients } from './clip-gradients.ts';
import { countSteps } from './count-steps.ts';
import { decayWeights } from './decay-weights.ts';
import { declareParameters, type Statistic } from './declare-parameters.ts';
import { differentiate } from './differentiate.ts';
import { dropDirections } from './extend.ts';
import { guardUpdates } from './guard-updates.ts';
import { nameGradients } from './name-gradients.ts';
import type { TrainOptions } from './options.ts';
import { rebindBatch } from './rebind-batch.ts';
import { followSamples } from './samples.ts';
import { saveLoopStates } from './save-loop-states.ts';
import { adaptLossScale, declareLossScale, unscaleGradients } from './scale-loss.ts';
import { seedRandomOps } from './seed-random-ops.ts';
import { sharpenGradients } from './sharpen-gradients.ts';
import { inferUnits, type Unit, type Units } from './units.ts';
import { updateParameters } from './update-parameters.ts';

/** A training step: an ordinary graph whose state is updated, and the units that its passes went by. */
export interface TrainingStep {
  readonly graph: Graph;
  readonly units: Units;
  /** Ops that join the samples of a micro-batch alone, as they were allowed to. */
  readonly joins: readonly string[];
}

/**
 * Makes a training step of an imported model. The step takes the model's inputs, the target `y` (unless the model computes its loss) and the learning rate `lr`; it returns the
 * model's outputs, the scalar `loss` and, if asked for, gradients; it updates parameters, running statistics and the optimizer's state.
 */
export function trainingStep(graph: Graph, statistics: readonly Statistic[], options: TrainOptions, target: Target, pipeline: PipelineOptions = {}): TrainingStep {
  requireKeptStatistics(graph, statistics);
  const forward = runPipeline(graph, target, { ...pipeline, passes: forwardPasses(statistics, options) });
  const units = withNamedUnits(inferUnits(forward), forward, options);
  return { graph: runPipeline(forward, target, { ...pipeline, passes: stepPasses(options, units) }), units, joins: options.microBatch !== undefined && options.joinWithinMicroBatch ? followSamples(forward).joins.map(describe) : [] };
}

/** Refuses batch norms whose running statistics would stay as they were, while everything else is trained. */
function requireKeptStatistics(graph: Graph, statistics: readonly Statistic[]): void {
  const lost = findNorms(graph, statistics).find((n) => n.form === 'training' && n.running && n.within.length > 0);
  if (!lost) return;
  throw new Unsupported('running statistics inside branches and loops', `${lost.last.source[0] ?? 'a batch normalization'} follows the batch ${placeOf(lost)}, where a step cannot keep its running statistics "${lost.running!.mean.name ?? ''}" and "${lost.running!.variance.name ?? ''}": rewrite it to a norm that has none (--norm group:4+proxy, layer, instance) or to the statistics that it has (--norm frozen), or move it out of the branch or loop in the model`);
}

const pass = (name: string, run: Pass['run']): Pass => ({ name, run });

function forwardPasses(statistics: readonly Statistic[], options: TrainOptions): Pass[] {
  return [
    pass('declare-parameters', (g) => declareParameters(g, statistics, options)),
    pass('rebind-batch', (g) => (options.batch === undefined ? g : rebindBatch(g, options.batch))),
    pass('count-steps', countSteps),
    pass('seed-random-ops', seedRandomOps),
    pass('eliminate-dead-code', eliminateDeadCode),
    pass('simplify', simplify),
    pass('fold-constants', foldConstants),
    pass('eliminate-common-subexpressions', eliminateCommonSubexpressions),
    pass('join-affine', joinAffine),
    pass('simplify', simplify),
    pass('save-loop-states', saveLoopStates),
  ];
}

/** Loss and gradients, of the whole batch at once or in a loop over parts of it. */
function gradientPasses(options: TrainOptions): Pass[] {
  const { loss, output, microBatch, lossScale } = options;
  return [
    pass('store-half', (g) => (options.precision === 'mixed' ? storeHalf(g, { masters: true }) : g)),
    pass('declare-loss-scale', (g) => declareLossScale(g, lossScale)),
    ...differentiation(),
    pass('unscale-gradients', (g) => unscaleGradients(g, lossScale)),
  ];

  function differentiation(): Pass[] {
    if (microBatch !== undefined) return [pass('accumulate-gradients', (g) => accumulateGradients(g, { loss, output, microBatch, joinWithin: options.joinWithinMicroBatch ?? false }))];
    // The loss is not simplified before it is differentiated: max(x, 0) and relu(x) have other slopes at 0.
    return [pass('add-loss', (g) => addLoss(g, loss, output)), pass('differentiate', differentiate)];
  }
}

function stepPasses(options: TrainOptions, units: Units): Pass[] {
  const { optimizer, gradients } = options;
  return [
    ...gradientPasses(options),
    pass('join-affine', joinAffine),
    pass('name-gradients', nameGradients),
    pass('eliminate-dead-code', eliminateDeadCode),
    pass('sharpen-gradients', (g) => sharpenGradients(g, optimizer.sam)),
    pass('adapt-loss-scale', (g) => adaptLossScale(g, options.lossScale)),
    pass('clip-gradients', (g) => clipGradients(g, optimizer, units)),
    pass('decay-weights', (g) => decayWeights(g, optimizer)),
    pass('centralize-gradients', (g) => centralizeGradients(g, optimizer.gc, units)),
    pass('update-parameters', (g) => updateParameters(g, optimizer, units)),
    pass('average-weights', (g) => averageWeights(g, optimizer.ema)),
    pass('guard-updates', guardUpdates),
    pass('drop-directions', (g) => dropDirections(g, gradients ?? false)),
    pass('eliminate-dead-code', eliminateDeadCode),
  ];
}

/** Units that the user names take the place of inferred ones. */
function withNamedUnits(inferred: Units, graph: Graph, options: TrainOptions): Units {
  const units = new Map(inferred.units);
  for (const [name, unit] of Object.entries(options.units ?? {})) {
    const state = graph.state.find((s) => s.name === name);
    if (!state) throw new UserError(`a unit is given for "${name}", but the model has no parameter of that name`);
    const shape = unit.shape ?? state.value.type.shape;
    const fits = shape.reduce((n, d) => n * d, 1) === state.value.type.shape.reduce((n, d) => n * d, 1) && unit.axes.every((a) => a in shape);
    if (!fits) throw new UserError(`the unit of "${name}" spans axes [${unit.axes.join(',')}] of [${shape.join(',')}], which do not fit its shape [${state.value.type.shape.join(',')}]`);
    const kind: Unit['kind'] = inferred.units.get(name)?.kind ?? 'linear';
    units.set(name, { shape, axes: [...unit.axes].sort((a, b) => a - b), kind });
  }
  return { ...inferred, units };
}
