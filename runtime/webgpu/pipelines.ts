/** Compute pipelines of an artifact: made once, all at the same time, and shared by sessions on one device. */
import { RunError } from '../error.ts';
import type { GpuProgram } from '../manifest.ts';
import { bounded, patience } from './device.ts';
import { ShaderError } from './error.ts';
import { subgroupsInOrder } from './subgroups.ts';
import { computeStage, type GpuBindGroupLayout, type GpuDevice, type GpuPipeline } from './types.ts';

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
    if (code === undefined) throw new RunError(`the artifact lacks the shader ${s.file}`);
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
    const { messages } = await module.getCompilationInfo();
    const lines = messages.filter((m) => m.type === 'error').map((m) => `line ${m.lineNum}: ${m.message}`);
    const from = shader.source.length > 0 ? `, from ${shader.source.join(', ')}` : '';
    throw new ShaderError(`the GPU driver rejects the shader ${shader.file} of ${shader.name}${from}: ${lines.length > 0 ? lines.join('; ') : e instanceof Error ? e.message : String(e)}${dumped(shader.file, code)}`, code);
  }
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
