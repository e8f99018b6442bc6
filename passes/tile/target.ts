/** What the planner knows of a machine of tiles: constants with a unit and a source each (targets/*.json). */
import { UserError } from '../../ir/diagnostic.ts';
import type { DType } from '../../ir/type.ts';

/** Every constant of a target, with its unit. */
export const constantUnits = {
  tiles: 'tiles', bytesPerTile: 'bytes', clock: 'cycles a second', workers: 'threads a tile', 'vector.f16': 'elements a cycle', 'vector.f32': 'elements a cycle',
  'macs.f16': 'multiply-adds a cycle', 'macs.f32': 'multiply-adds a cycle', 'grainIn.f16': 'channels', 'grainIn.f32': 'channels', grainOut: 'channels',
  exchange: 'bytes a cycle', pairFactor: 'times', copy: 'bytes a cycle', sync: 'cycles', control: 'cycles',
  'matrix.vertex': 'cycles', 'matrix.inGroup': 'cycles', 'matrix.outGroup': 'cycles', 'matrix.load.f16': 'cycles', 'matrix.load.f32': 'cycles', 'matrix.loadPoint': 'cycles', 'matrix.loadWindow': 'cycles',
  'matrix.workerPoint': 'cycles', 'matrix.workerWindow': 'cycles', 'matrix.row': 'cycles', 'matrix.zero': 'cycles', 'matrix.fill': 'elements', 'vector.vertex': 'cycles', 'vector.row': 'cycles',
  'map.vertex': 'cycles', 'map.worker': 'cycles', 'map.loadStore': 'cycles a vector', 'reduce.vertex': 'cycles', 'reduce.step': 'cycles a vector', 'pool.step': 'cycles a vector', 'pool.back': 'cycles a vector', 'pool.row': 'cycles',
  'code.vertexType': 'bytes', 'code.exchange': 'bytes a program', 'code.fragment': 'bytes a fragment', 'code.vertex': 'bytes a vertex', 'code.edge': 'bytes an operand', 'code.control': 'bytes a step',
  slack: 'share of bytesPerTile', temporary: 'share of bytesPerTile', grain: 'bytes',
} as const;

export type ConstantName = keyof typeof constantUnits;

/** A machine, as plain data. */
export interface TileTarget {
  readonly name: string;
  readonly description: string;
  /** What is compiled for it in place of a tile program, cut for its tiles and bytes: kernels for WebAssembly, whose cores share a memory, or, where that backend is asked for, shaders, whose workgroups do. */
  readonly backend?: 'wasm' | 'wgsl';
  readonly constants: Readonly<Record<ConstantName, number>>;
  /** Where each constant comes from. */
  readonly sources: Readonly<Record<ConstantName, string>>;
}

const whole: ReadonlySet<ConstantName> = new Set(['tiles', 'bytesPerTile', 'workers', 'grainIn.f16', 'grainIn.f32', 'grainOut', 'grain']);
const mayBeZero = (name: ConstantName): boolean => /^(matrix|vector|map|reduce|pool|code)\./.test(name) && !/^vector\.f/.test(name) ? true : name === 'slack' || name === 'sync' || name === 'control';

/** Checks what a target file holds. A field that is missing, unknown or out of range is a UserError that names it and its unit; `file` is how messages call the file. */
export function parseTarget(data: unknown, file: string): TileTarget {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) throw new UserError(`${file} holds no target: expected an object with name, description and constants`);
  const { name, description, backend, constants } = data as Record<string, unknown>;
  if (typeof name !== 'string' || name === '') throw new UserError(`${file}: field "name" is missing; it is the target's name`);
  if (typeof description !== 'string') throw new UserError(`${file}: field "description" is missing; it says in words what the target is`);
  if (backend !== undefined && backend !== 'wasm' && backend !== 'wgsl') throw new UserError(`${file}: field "backend" is ${JSON.stringify(backend)}, expected "wasm" (kernels for WebAssembly are cut for the target), "wgsl" (shaders are) or none (tile programs)`);
  if (typeof constants !== 'object' || constants === null) throw new UserError(`${file}: field "constants" is missing; it holds a value, a unit and a source for each constant`);
  const given = constants as Record<string, unknown>;
  const names = Object.keys(constantUnits) as ConstantName[];
  const unknown = Object.keys(given).find((k) => !(k in constantUnits));
  if (unknown !== undefined) throw new UserError(`${file}: there is no constant "${unknown}"; known are ${names.join(', ')}`);
  const values: Partial<Record<ConstantName, number>> = {};
  const sources: Partial<Record<ConstantName, string>> = {};
  for (const key of names) {
    const unit = constantUnits[key];
    const entry = given[key] as { value?: unknown; unit?: unknown; source?: unknown } | undefined;
    if (entry === undefined) throw new UserError(`${file}: constant "${key}" (${unit}) is missing`);
    if (typeof entry !== 'object' || entry === null || typeof entry.value !== 'number' || !Number.isFinite(entry.value)) throw new UserError(`${file}: constant "${key}" needs a number as its value, in ${unit}`);
    if (entry.unit !== unit) throw new UserError(`${file}: constant "${key}" has the unit ${JSON.stringify(entry.unit)}, expected "${unit}"`);
    if (typeof entry.source !== 'string' || entry.source === '') throw new UserError(`${file}: constant "${key}" (${unit}) says no source; write where the number comes from, or "assumption"`);
    checkConstant(key, entry.value, file);
    values[key] = entry.value;
    sources[key] = entry.source;
  }
  return { name, description, ...(backend && { backend }), constants: values as Record<ConstantName, number>, sources: sources as Record<ConstantName, string> };
}

/** A target with other numbers of tiles or bytes, as the command line gives them. */
export function withConstants(target: TileTarget, other: Partial<Record<ConstantName, number>>): TileTarget {
  for (const [key, value] of Object.entries(other)) checkConstant(key as ConstantName, value, `target ${target.name}`);
  return { ...target, constants: { ...target.constants, ...other } };
}

function checkConstant(key: ConstantName, value: number, file: string): void {
  const unit = constantUnits[key];
  const least = mayBeZero(key) ? 0 : whole.has(key) ? 1 : Number.MIN_VALUE;
  if (value < least || !Number.isFinite(value)) throw new UserError(`${file}: constant "${key}" is ${value}, expected ${least === 0 ? 'zero or more' : 'more than zero'} (${unit})`);
  if (whole.has(key) && !Number.isInteger(value)) throw new UserError(`${file}: constant "${key}" is ${value}, expected a whole number (${unit})`);
}

/** Vectors and matrix units work on f16, or on f32 and everything else. */
const isHalf = (dtype: DType): boolean => dtype === 'f16' || dtype === 'bf16';
/** Elements of one vector. */
export const vectorOf = ({ constants }: TileTarget, dtype: DType): number => (isHalf(dtype) ? constants['vector.f16'] : constants['vector.f32']);
export const macsOf = ({ constants }: TileTarget, dtype: DType): number => (isHalf(dtype) ? constants['macs.f16'] : constants['macs.f32']);
export const grainInOf = ({ constants }: TileTarget, dtype: DType): number => (isHalf(dtype) ? constants['grainIn.f16'] : constants['grainIn.f32']);
export const weightLoadOf = ({ constants }: TileTarget, dtype: DType): number => (isHalf(dtype) ? constants['matrix.load.f16'] : constants['matrix.load.f32']);
/** Rounds bytes up to the target's grain. */
export const toGrain = (t: TileTarget, bytes: number): number => Math.ceil(bytes / t.constants.grain) * t.constants.grain;
/** Bytes that a tile may hold, slack left free. */
export const usableBytes = (t: TileTarget): number => Math.floor(t.constants.bytesPerTile * (1 - t.constants.slack));
