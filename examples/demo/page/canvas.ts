/** Canvases that are drawn in the page's own units. */

/** A canvas, emptied, with as many pixels as the screen shows of it; sizes and coordinates are in the units of CSS. */
export function fresh(canvas: HTMLCanvasElement): { readonly g: CanvasRenderingContext2D; readonly width: number; readonly height: number; readonly ink: string; readonly accent: string; readonly quiet: string } {
  const { clientWidth: width, clientHeight: height } = canvas;
  const sharpness = globalThis.devicePixelRatio;
  canvas.width = Math.round(width * sharpness);
  canvas.height = Math.round(height * sharpness);
  const g = canvas.getContext('2d')!;
  g.scale(sharpness, sharpness);
  const style = getComputedStyle(canvas);
  // Colours that depend on the scheme are words to a canvas until the style has settled them.
  const settled = (name: string): string => {
    canvas.style.borderColor = `var(--${name})`;
    const colour = getComputedStyle(canvas).borderTopColor;
    canvas.style.borderColor = '';
    return colour;
  };
  g.font = `12px ${style.fontFamily}`;
  return { g, width, height, ink: style.color, accent: settled('accent'), quiet: settled('quiet') };
}
