/** A loss curve on a canvas. */

/** Draws a number for each step, with its range at the side. */
export function drawCurve(canvas: HTMLCanvasElement, values: readonly number[]): void {
  const { width, height } = canvas;
  const g = canvas.getContext('2d')!;
  const [left, below, margin] = [44, 22, 8];
  const colour = getComputedStyle(canvas).color;
  g.clearRect(0, 0, width, height);
  Object.assign(g, { font: '12px system-ui, sans-serif', fillStyle: colour, strokeStyle: colour, lineWidth: 1 });
  const top = Math.max(1e-6, ...values) * 1.05;
  const steps = Math.max(10, values.length);
  const x = (i: number): number => left + ((i + 1) / steps) * (width - left - margin);
  const y = (v: number): number => margin + (1 - v / top) * (height - below - margin);
  g.globalAlpha = 0.35;
  for (let i = 0; i <= 4; i++) {
    g.beginPath();
    g.moveTo(left, y((top * i) / 4));
    g.lineTo(width - margin, y((top * i) / 4));
    g.stroke();
  }
  g.globalAlpha = 1;
  for (let i = 0; i <= 4; i++) g.fillText(((top * i) / 4).toFixed(2), 4, y((top * i) / 4) + 4);
  g.fillText('loss', left + 6, margin + 10);
  g.fillText(`${values.length} steps`, width - 80, height - 6);
  Object.assign(g, { strokeStyle: '#2a7de1', fillStyle: '#2a7de1', lineWidth: 2 });
  g.beginPath();
  values.forEach((v, i) => (i === 0 ? g.moveTo(x(i), y(v)) : g.lineTo(x(i), y(v))));
  g.stroke();
  if (values.length > 0) g.fillRect(x(values.length - 1) - 3, y(values.at(-1)!) - 3, 6, 6);
}
