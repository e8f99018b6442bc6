/** Checks what a manifest from outside says of a program for a GPU. */
import type { GpuProgram, GpuStep, Manifest } from '../manifest.ts';

const kinds: readonly string[] = ['constant', 'state', 'io', 'temp', 'gate'];
const limits = ['maxBufferSize', 'maxStorageBufferBindingSize', 'maxStorageBuffersPerShaderStage', 'maxComputeWorkgroupStorageSize', 'maxComputeInvocationsPerWorkgroup'] as const satisfies readonly (keyof GpuProgram['limits'])[];

const isCount = (n: unknown): boolean => Number.isSafeInteger(n) && (n as number) >= 0;
const isPair = (x: unknown): x is readonly [number, number] => Array.isArray(x) && x.length === 2 && x.every(isCount);

/** Calls `bad` with what is missing or malformed: buffers, limits, shaders, and of every dispatch its shader, bindings and workgroups. What lies beyond a buffer is told by the device. */
export function checkProgram(manifest: Manifest, bad: (why: string) => never): void {
  const program = manifest.gpu ?? bad('its backend is wgsl, and gpu is missing');
  for (const key of ['segments', 'entries', 'shaders'] as const) if (!Array.isArray(program[key])) bad(`gpu.${key} is missing`);
  program.segments.forEach((s, i) => {
    if (!kinds.includes(s?.kind) || !isCount(s.start) || !isCount(s.bytes)) bad(`gpu.segments[${i}] is malformed; expected kind, start and bytes`);
  });
  const missing = limits.find((name) => !isCount(program.limits?.[name]));
  if (missing !== undefined) bad(`gpu.limits.${missing} is missing or no whole number`);
  if (program.features !== undefined && !(Array.isArray(program.features) && program.features.every((f) => typeof f === 'string'))) bad('gpu.features is malformed; expected names of WebGPU’s features');
  if (program.floatInputs !== undefined && !(Array.isArray(program.floatInputs) && program.floatInputs.every((f) => typeof f === 'string'))) bad('gpu.floatInputs is malformed; expected names of inputs');
  const { integerInputs } = program;
  if (!Array.isArray(integerInputs) || integerInputs.length !== 2 || !integerInputs.every((n) => Number.isSafeInteger(n))) bad('gpu.integerInputs is missing or malformed; expected the least and the largest integer');
  program.shaders.forEach((s, i) => {
    const texts: readonly unknown[] = [s?.file, s?.name, ...(s?.subgroups === undefined ? [] : [s.subgroups])];
    if (!texts.every((t) => typeof t === 'string') || !Array.isArray(s.source) || !Array.isArray(s.writes) || !s.writes.every((w) => typeof w === 'boolean')) bad(`gpu.shaders[${i}] is malformed; expected file, name, source and writes`);
  });
  const entries = manifest.entries?.length ?? 1;
  if (program.entries.length !== entries) bad(`gpu.entries has ${program.entries.length} programs, expected ${entries}`);
  program.entries.forEach((steps, i) => checkSteps(steps, `gpu.entries[${i}]`, manifest, program, bad));
}

function checkSteps(steps: readonly GpuStep[], where: string, manifest: Manifest, program: GpuProgram, bad: (why: string) => never): void {
  if (!Array.isArray(steps)) bad(`${where} is no list of steps`);
  steps.forEach((s, i) => {
    const at = `${where}[${i}]`;
    if (s !== null && typeof s === 'object' && 'repeat' in s) {
      if (!isCount(s.repeat)) bad(`${at}.repeat is no whole number`);
      return checkSteps(s.body, `${at}.body`, manifest, program, bad);
    }
    const shader = program.shaders[s?.shader];
    if (!shader) return bad(`${at} names shader ${String(s?.shader)}, there are ${program.shaders.length}`);
    const isBinding = (b: unknown): boolean => Array.isArray(b) && b.length === 3 && b.every(isCount) && (b[0] as number) < program.segments.length;
    if (!Array.isArray(s.bindings) || s.bindings.length !== shader.writes.length || !s.bindings.every(isBinding)) bad(`the bindings of ${at} are malformed; ${shader.file} takes ${shader.writes.length} of segment, offset and bytes`);
    if (!isPair(s.workgroups)) bad(`the workgroups of ${at} are malformed; expected two whole numbers`);
    if (s.indirect !== undefined && !(isPair(s.indirect) && s.indirect[0] < program.segments.length)) bad(`where ${at} reads its workgroups is malformed; expected segment and offset`);
    if (!isCount(s.step) || s.step >= manifest.steps.length) bad(`${at} names row ${String(s.step)} of ${manifest.steps.length} steps`);
  });
}
