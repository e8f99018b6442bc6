/** Compute pipelines of an artifact: made once, all at the same time, and shared by sessions on one device. */
import { InputError } from '../error.ts';
import type { GpuProgram } from '../manifest.ts';
import { bounded, patience, wordsOf } from './device.ts';
import { GpuFailure, ShaderError } from './error.ts';
import { subgroupsInOrder } from './subgroups.ts';
import { computeStage, type GpuBindGroupLayout, type GpuDevice, type GpuPipeline, type GpuShaderModule } from './types.ts';

export interface Pipeline { readonly pipeline: GpuPipeline; readonly layout: GpuBindGroupLayout }

const made = new WeakMap<GpuDevice, Map<string, Promise<Pipeline>>>();

/** The pipelines of shaders, by their number. A shader that the driver rejects is a ShaderError that names the fused op and the ONNX nodes that it came from. */
export async function makePipelines(device: GpuDevice, shaders: GpuProgram['shaders'], texts: Readonly<Record<string, string>>): Promise<Pipeline[]> {
  const known = made.get(device) ?? new Map<string, Promise<Pipeline>>();
  made.set(device, known);
  // Those that have one form alone do not wait for the device's answer.
  const inOrder = shaders.some((s) => s.subgroups !== undefined) ? subgroupsInOrder(device) : Promise.resolve(false);
  const all = shaders.map(async (shader) => {
    const s = shader.subgroups !== undefined && await inOrder ? { ...shader, file: shader.subgroups } : shader;
    const code = texts[s.file];
    if (code === undefined) throw new InputError(`the artifact lacks the shader ${s.file}`);
    const key = code.slice(code.indexOf('\n'));
    let pipeline = known.get(key);
    if (!pipeline) {
      pipeline = makePipeline(device, s, code);
      known.set(key, pipeline);
    }
    return pipeline;
  });
  return bounded(Promise.all(all), patience.pipelines, 'the GPU driver did not compile the shaders');
}

async function makePipeline(device: GpuDevice, shader: GpuProgram['shaders'][number], code: string): Promise<Pipeline> {
  const layout = device.createBindGroupLayout({
    entries: shader.writes.map((writes, binding) => ({ binding, visibility: computeStage, buffer: { type: writes ? 'storage' : 'read-only-storage' } })),
  });
  // What is wrong with the text is told by the pipeline; here it would go to the console.
  device.pushErrorScope('validation');
  const module = device.createShaderModule({ code, label: shader.file });
  const quiet = device.popErrorScope();
  try {
    const pipeline = await device.createComputePipelineAsync({ layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }), compute: { module, entryPoint: 'main' }, label: shader.file });
    await quiet;
    return { pipeline, layout };
  } catch (e) {
    const lines = await errorsOf(module);
    const what = `the shader ${shader.file} of ${shader.name}${shader.source.length > 0 ? `, from ${shader.source.join(', ')}` : ''}`;
    if (lines.length === 0 && (e as Error | null)?.name !== 'GPUPipelineError') throw new GpuFailure(`the GPU driver did not compile ${what}: ${wordsOf(e)}`);
    throw new ShaderError(`the GPU driver rejects ${what}: ${lines.length > 0 ? lines.join('; ') : wordsOf(e)}${dumped(shader.file, code)}`, code);
  }
}

/** What a compiler says against a module; nothing where it cannot be asked any more. */
async function errorsOf(module: GpuShaderModule): Promise<string[]> {
  const info = await bounded(module.getCompilationInfo(), patience.loss, '').catch(() => undefined);
  return (info?.messages ?? []).filter((m) => m.type === 'error').map((m) => `line ${m.lineNum}: ${m.message}`);
}

/** Where the text of a rejected shader can be read, in Node. */
function dumped(file: string, code: string): string {
  const fs = globalThis.process?.getBuiltinModule?.('node:fs');
  const os = globalThis.process?.getBuiltinModule?.('node:os');
  if (!fs || !os) return '';
  try {
    const path = `${fs.mkdtempSync(`${os.tmpdir()}/tilewright-shader-`)}/${file}`;
    fs.writeFileSync(path, code);
    return `. Its text is in ${path}`;
  } catch {
    return '';
  }
}
