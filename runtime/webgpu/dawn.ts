/** WebGPU in Node: Dawn, from the npm package webgpu, and the Vulkan driver that it finds. */
import { NoGpu } from './error.ts';
import type { Gpu } from './types.ts';

/** Where Debian's package chromium has a Vulkan loader and a driver that computes on the CPU. */
const chromium = '/usr/lib/chromium';
const loader = 'libvulkan.so.1';
const software = `${chromium}/vk_swiftshader_icd.json`;
const systemFolders = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib64', '/usr/lib', '/usr/local/lib', '/lib/x86_64-linux-gnu'];
const driverFolders = ['/usr/share/vulkan/icd.d', '/etc/vulkan/icd.d', '/usr/local/share/vulkan/icd.d'];

/** Dawn's GPU object, one a process. A NoGpu says what to install where the package is missing. */
export async function dawnGpu(): Promise<Gpu> {
  const name = 'webgpu';
  const dawn = await (import(/* @vite-ignore */ name) as Promise<{ create(flags: readonly string[]): Gpu }>).catch((e: unknown) => {
    throw new NoGpu(`Node has no WebGPU of its own, and the package "webgpu" (Dawn) cannot be loaded: ${e instanceof Error ? e.message.split('\n')[0]! : String(e)}. Install it with npm install webgpu`);
  });
  findDriver();
  // Kernels write workgroup memory before they read it. Clearing it first costs software drivers seconds of compilation for every shader.
  // Stamps of time are rounded to 0.1 ms for web pages, which must not learn of each other; here there is one program.
  return (made ??= dawn.create(['enable-dawn-features=disable_workgroup_init', 'disable-dawn-features=timestamp_quantization']));
}

/** Kept for good: where it is collected before its adapters, devices or buffers are, Dawn frees what these still use, and the process dies. It does not keep a process from ending. */
let made: Gpu | undefined;

/** On Linux without a Vulkan loader or without drivers of its own, those of Debian's chromium are taken, where it is installed. */
function findDriver(): void {
  const fs = globalThis.process.getBuiltinModule('node:fs');
  const { env, platform } = globalThis.process;
  if (platform !== 'linux' || !fs.existsSync(software)) return;
  const hasDrivers = driverFolders.some((f) => fs.existsSync(f) && fs.readdirSync(f).some((d) => d.endsWith('.json')));
  if (env['VK_ICD_FILENAMES'] === undefined && env['VK_DRIVER_FILES'] === undefined && !hasDrivers) env['VK_ICD_FILENAMES'] = software;
  const folders = [...(env['LD_LIBRARY_PATH'] ?? '').split(':').filter((f) => f !== ''), ...systemFolders];
  if (folders.some((f) => fs.existsSync(`${f}/${loader}`))) return;
  // Dawn asks for the loader by its name alone, and gets one that is in the process already.
  const ffi = globalThis.process.getBuiltinModule('node:ffi') as { dlopen?(path: string): unknown } | undefined;
  held ??= ffi?.dlopen?.(`${chromium}/${loader}`);
}

/** The loader, kept from being unloaded. */
let held: unknown;
