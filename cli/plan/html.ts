/** A plan as a page of HTML that needs nothing else: data, styles and script stand in it, and it asks no network for anything. */
import { basename } from 'node:path';
import { dtypes } from '../../ir/type.ts';
import type { TilePlan } from '../../ir/tiles.ts';
import { planToJson } from '../../passes/tile/json.ts';
import type { TileTarget } from '../../passes/tile/target.ts';
import { comparePlans } from './compare.ts';
import * as draw from './page.ts';
import * as calculate from './page-data.ts';

/** The page of a plan. `against`: another plan to compare with, and the name of its file. */
export function planHtml(plan: TilePlan, target: TileTarget, recompute: string, against?: { readonly plan: TilePlan; readonly file: string }): string {
  const data: draw.PageData = {
    plan: planToJson(plan) as unknown as calculate.PagePlan,
    targetDescription: target.description,
    recompute,
    scalarBytes: Object.fromEntries(Object.entries(dtypes).map(([name, d]) => [name, d.bytes])),
    macsPerCycle: { f16: target.constants['macs.f16'], f32: target.constants['macs.f32'] },
    clock: target.constants.clock,
    ...(against && { comparison: { name: basename(against.file), rows: comparePlans(plan, against.plan) } }),
  };
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
<link rel="icon" href="data:,">
<title>Tile plan</title>
<style>${styles}</style>
</head>
<body>
${body}
<script id="data" type="application/json">${JSON.stringify(data).replaceAll('<', '\\u003c')}</script>
<script>
'use strict';
${source()}
drawPage(JSON.parse(document.getElementById('data').textContent));
</script>
</body>
</html>
`;
}

/** The text of the page's functions. They are plain functions that use nothing but each other. */
const source = (): string => [...Object.values(calculate), ...Object.values(draw)].map(String).join('\n');

const styles = `
:root { color-scheme: light dark; --always: light-dark(#3b6ea8, #6fa3dd); --moving: light-dark(#e0a84a, #b98430); --sync: light-dark(#9a9a9a, #777); --limit: light-dark(#c0392b, #ff6b5b); --edge: light-dark(#ddd, #444); }
body { font: 14px/1.45 system-ui, sans-serif; margin: 24px auto; max-width: 1120px; padding: 0 16px; }
h1 { font-size: 22px; margin-bottom: 4px; } h2 { font-size: 17px; margin: 32px 0 8px; }
.over { color: var(--limit); font-weight: 600; }
svg { width: 100%; height: 200px; display: block; border: 1px solid var(--edge); } #steps { cursor: pointer; }
.limit { stroke: var(--limit); stroke-width: 2; vector-effect: non-scaling-stroke; } .marker { stroke: currentColor; stroke-width: 1; vector-effect: non-scaling-stroke; }
.legend { color: light-dark(#555, #aaa); } .legend i { display: inline-block; width: 12px; height: 12px; margin-left: 12px; vertical-align: -1px; } .legend i.limit { height: 2px; background: var(--limit); vertical-align: 4px; }
table { border-collapse: collapse; } td, th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top; } th { position: sticky; top: 0; background: Canvas; } .right { text-align: right; font-variant-numeric: tabular-nums; }
.list { max-height: 420px; overflow: auto; border: 1px solid var(--edge); padding: 0 8px; }
.bar { display: flex; width: 220px; height: 12px; margin-top: 4px; } .piece0 { background: var(--always); } .piece1 { background: var(--moving); } .piece2 { background: var(--sync); }
input[type=range] { width: 100%; margin: 8px 0; } canvas { image-rendering: pixelated; max-width: 100%; }
`;

const body = `
<h1 id="title"></h1>
<p id="lead"></p>
<table id="facts"></table>
<section id="comparison-section"><h2>Compared with <span id="comparison-name"></span></h2><p class="legend">Bytes of one tile, cycles of one sample.</p><div class="list"><table id="comparison"></table></div></section>
<h2>Memory by tile</h2>
<svg id="tiles" viewBox="0 0 1000 200" preserveAspectRatio="none"></svg><p class="legend" id="tiles-legend"></p>
<h2>Liveness</h2>
<svg id="steps" viewBox="0 0 1000 200" preserveAspectRatio="none"></svg><p class="legend" id="steps-legend"></p>
<label><input type="range" id="step" min="0" step="1" aria-label="step"><b id="chosen"></b></label>
<h2>Memory by category at this step</h2>
<table id="categories"></table>
<h2>Tensors alive at this step</h2>
<div class="list"><table id="alive"></table></div>
<h2>Tile map at this step</h2>
<p class="legend">Tiles in the order of their numbers, row by row; from blue (little) to red (the most of all tiles).</p>
<canvas id="map"></canvas><p id="map-text"></p>
<h2>Ops</h2>
<p class="legend">Cycles of a whole run on the worst tile. Bars: <i class="piece0"></i> compute <i class="piece1"></i> exchange <i class="piece2"></i> sync. Utilisation: multiply-adds done, of those that the tile could have done in its compute cycles.</p>
<div class="list"><table id="ops"></table></div>
<h2>Largest tensors</h2>
<div class="list"><table id="largest"></table></div>
`;
