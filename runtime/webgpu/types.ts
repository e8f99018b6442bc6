/** What the runtime uses of WebGPU, as structural types: those of a browser, of Dawn in Node and of others fit. Names are the standard's (https://www.w3.org/TR/webgpu/). */

export interface Gpu {
  requestAdapter(options?: { readonly powerPreference?: 'high-performance' | 'low-power' }): Promise<GpuAdapter | null>;
}

export interface GpuAdapter {
  readonly info?: { readonly vendor: string; readonly architecture: string; readonly device: string; readonly description: string };
  readonly features: { has(name: string): boolean };
  readonly limits: Readonly<Record<string, number>>;
  requestDevice(descriptor?: { readonly requiredFeatures?: readonly string[]; readonly requiredLimits?: Readonly<Record<string, number>> }): Promise<GpuDevice>;
}

export interface GpuError { readonly message: string }

export interface GpuDevice {
  readonly features: { has(name: string): boolean };
  readonly limits: Readonly<Record<string, number>>;
  readonly lost: Promise<{ readonly reason: string; readonly message: string }>;
  readonly queue: GpuQueue;
  onuncapturederror: ((event: { readonly error: GpuError }) => void) | null;
  createBuffer(descriptor: { readonly size: number; readonly usage: number; readonly label?: string }): GpuBuffer;
  createShaderModule(descriptor: { readonly code: string; readonly label?: string }): GpuShaderModule;
  createBindGroupLayout(descriptor: { readonly entries: readonly { readonly binding: number; readonly visibility: number; readonly buffer: { readonly type: 'storage' | 'read-only-storage' } }[] }): GpuBindGroupLayout;
  createPipelineLayout(descriptor: { readonly bindGroupLayouts: readonly GpuBindGroupLayout[] }): object;
  createComputePipelineAsync(descriptor: { readonly layout: object; readonly compute: { readonly module: GpuShaderModule; readonly entryPoint: string }; readonly label?: string }): Promise<GpuPipeline>;
  createBindGroup(descriptor: { readonly layout: GpuBindGroupLayout; readonly entries: readonly { readonly binding: number; readonly resource: { readonly buffer: GpuBuffer; readonly offset: number; readonly size: number } }[] }): GpuBindGroup;
  createCommandEncoder(): GpuCommandEncoder;
  createQuerySet(descriptor: { readonly type: 'timestamp'; readonly count: number }): GpuQuerySet;
  pushErrorScope(filter: 'validation' | 'out-of-memory' | 'internal'): void;
  popErrorScope(): Promise<GpuError | null>;
  destroy(): void;
}

export interface GpuQueue {
  submit(commands: readonly object[]): void;
  writeBuffer(buffer: GpuBuffer, offset: number, data: ArrayBufferView, dataOffset?: number, size?: number): void;
  onSubmittedWorkDone(): Promise<unknown>;
}

export interface GpuBuffer {
  readonly size: number;
  mapAsync(mode: number, offset?: number, size?: number): Promise<unknown>;
  getMappedRange(offset?: number, size?: number): ArrayBuffer;
  unmap(): void;
  destroy(): void;
}

export interface GpuShaderModule {
  getCompilationInfo(): Promise<{ readonly messages: readonly { readonly type: string; readonly message: string; readonly lineNum: number; readonly linePos: number }[] }>;
}
declare const kind: unique symbol;
export interface GpuBindGroupLayout { readonly [kind]?: 'layout' }
export interface GpuBindGroup { readonly [kind]?: 'group' }
export interface GpuPipeline { readonly [kind]?: 'pipeline' }
export interface GpuQuerySet { destroy(): void }

export interface GpuComputePass {
  setPipeline(pipeline: GpuPipeline): void;
  setBindGroup(index: number, group: GpuBindGroup): void;
  dispatchWorkgroups(x: number, y?: number, z?: number): void;
  dispatchWorkgroupsIndirect(buffer: GpuBuffer, offset: number): void;
  end(): void;
}

export interface GpuCommandEncoder {
  beginComputePass(descriptor?: { readonly timestampWrites?: { readonly querySet: GpuQuerySet; readonly beginningOfPassWriteIndex: number; readonly endOfPassWriteIndex: number } }): GpuComputePass;
  copyBufferToBuffer(source: GpuBuffer, sourceOffset: number, target: GpuBuffer, targetOffset: number, size: number): void;
  resolveQuerySet(set: GpuQuerySet, first: number, count: number, target: GpuBuffer, offset: number): void;
  finish(): object;
}

/** Bits of GPUBufferUsage, GPUShaderStage and GPUMapMode. */
export const usage = { mapRead: 0x1, copySource: 0x4, copyTarget: 0x8, storage: 0x80, indirect: 0x100, queryResolve: 0x200 } as const;
export const computeStage = 0x4;
export const mapRead = 0x1;
