/** A training golden: a folder with model.onnx, case.json and data.safetensors, as ../shared/tools/make_goldens.py writes them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Tensor } from '../ir/type.ts';
import { parseNorm, type NormSpec } from '../passes/norm/options.ts';
import type { LossSpec, OptimizerSpec } from '../passes/train/options.ts';
import { readSafetensors } from '../runtime/safetensors.ts';

/** Steps that a case records. */
export const steps = 3;

export interface GoldenCase {
  readonly model: string;
  readonly loss: LossSpec;
  readonly optimizer: OptimizerSpec;
  readonly rate: number;
  /** Names of all parameters. */
  readonly parameters: readonly string[];
  /** Which parameters have a unit, and what it spans. */
  readonly units: Readonly<Record<string, { readonly shape?: readonly number[]; readonly axes: readonly number[] }>>;
  /** Whether the case's optimizer goes by units. */
  readonly usesUnits: boolean;
  readonly tolerance: { readonly rtol: number; readonly atol: number };
  /** The rewrite of norms that the case trains after, where it does. */
  readonly rewrite: NormSpec | undefined;
  /** x, y, and for each step K: loss/K, logits/K, grad/K/NAME, param/K/NAME, ema/K/NAME, state/K/NAME. */
  readonly data: ReadonlyMap<string, Tensor>;
}

interface CaseFile {
  readonly loss: Record<string, unknown>;
  readonly optimizer: Record<string, unknown> & { readonly lr: number };
  readonly parameters: readonly string[];
  readonly units: GoldenCase['units'];
  readonly tolerance: GoldenCase['tolerance'];
  readonly rewrite?: { readonly norm: string; readonly groups: number; readonly eps: number; readonly proxy?: { readonly samples: number; readonly eps: number } };
}

export async function readCase(folder: string): Promise<GoldenCase> {
  const file = JSON.parse(readFileSync(join(folder, 'case.json'), 'utf8')) as CaseFile;
  const { lr, ...optimizer } = file.optimizer;
  return {
    model: join(folder, 'model.onnx'),
    // The file writes every default out, null for what is off; its fields have our names.
    loss: given(file.loss) as unknown as LossSpec,
    optimizer: given(optimizer) as unknown as OptimizerSpec,
    rate: lr,
    parameters: file.parameters,
    units: file.units,
    usesUnits: optimizer['agc'] !== null || optimizer['gc'] !== null,
    tolerance: file.tolerance,
    rewrite: file.rewrite && normSpec(file.rewrite),
    data: await readSafetensors(readFileSync(join(folder, 'data.safetensors')), join(folder, 'data.safetensors')),
  };
}

function normSpec({ norm, groups, eps, proxy }: NonNullable<CaseFile['rewrite']>): NormSpec {
  const { kind } = parseNorm(`${norm}:${groups}`);
  return { kind, groups, epsilon: eps, ...(proxy && { proxy: { samples: proxy.samples, epsilon: proxy.eps } }) };
}

const given = (fields: Record<string, unknown>): Record<string, unknown> => Object.fromEntries(Object.entries(fields).filter(([, v]) => v !== null));
