"""How the page looks: dark text on white, nothing loaded from outside."""

STYLE = """
:root { --ink: #1d1d1f; --soft: #5f6368; --rule: #dcdfe3; --faint: #f6f7f8; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 -apple-system, "Segoe UI", "Helvetica Neue", Arial, "Liberation Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 32px 72px; }
h1, h2, h3 { line-height: 1.25; font-weight: 600; }
h1 { font-size: 28px; letter-spacing: -0.01em; margin: 28px 0 4px; }
h2 { font-size: 19px; margin: 48px 0 12px; }
h3 { font-size: 15px; margin: 28px 0 8px; overflow-wrap: anywhere; }
p, ul { max-width: 74ch; margin: 12px 0; }
ul { padding-left: 20px; }
li { margin: 4px 0; }
.lede { color: var(--soft); margin: 0 0 8px; }
.note { color: var(--soft); font-size: 14px; }
.class { max-width: none; margin: 0; padding: 12px 16px; background: var(--faint);
  border-left: 4px solid var(--soft); font-size: 15px; font-weight: 600; }
.class.synthetic, .class.smoke { background: #fdf6e7; border-color: #b97f10; }
.scroll { overflow-x: auto; margin: 12px 0; }
table { border-collapse: collapse; width: 100%; min-width: 520px; font-size: 14px; line-height: 1.4; }
table.wide { min-width: 900px; }
th, td { text-align: left; vertical-align: top; padding: 7px 14px 7px 0;
  border-bottom: 1px solid var(--rule); }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid #9aa0a6; vertical-align: bottom; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.code { font: 12.5px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace;
  overflow-wrap: anywhere; min-width: 22ch; }
td.good { color: #00634a; font-weight: 600; }
td.bad { color: #9a3b00; font-weight: 600; }
figure { margin: 20px 0 32px; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: 14px; max-width: 74ch; margin-top: 8px; }
.sheet { border-top: 1px solid var(--rule); padding-top: 4px; margin-top: 28px; }
.sheet:first-of-type { border-top: 0; margin-top: 0; }
.sheet img { max-width: 100%; height: auto; min-height: 96px; image-rendering: pixelated; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--faint);
  padding: 10px 14px; margin: 8px 0;
  font: 13px/1.5 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; }
@media (max-width: 640px) {
  main { padding: 20px 16px 48px; } h1 { font-size: 23px; } h2 { margin-top: 36px; }
}
@media print {
  main { max-width: none; padding: 0; } .scroll { overflow: visible; }
  figure, .sheet { break-inside: avoid; }
}
"""
