"use strict";
/* What moves on the page. Without it every number still stands there as text, table or drawing. */
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const root = document.documentElement;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const series = (index) => css(`--s${index % 7}`);
  // plotly reads some HTML in its texts; names come from data, so they are given as plain text.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const show = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
  const veil = (colour, share) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
    return `rgba(${r},${g},${b},${share})`;
  };

  /* ---- the tip beside the pointer, and the same words for screen readers ---- */
  const tip = $("tip");
  function tell(words, x, y, title) {
    tip.textContent = "";
    if (title) { const bold = document.createElement("b"); bold.textContent = title; tip.append(bold); }
    const said = document.createElement("bdi"); said.textContent = words; tip.append(said);
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(x + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(8, y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18)}px`;
  }
  const hush = () => { tip.hidden = true; };
  document.addEventListener("pointermove", (event) => {
    const marked = event.target.closest && event.target.closest("[data-tip]");
    if (marked) tell(marked.dataset.tip, event.clientX, event.clientY);
    else if (!(event.target.closest && event.target.closest(".chart"))) hush();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hush(); });
  addEventListener("scroll", hush, { passive: true });

  /* ---- plotly, unpacked when the first chart comes into view ---- */
  let unpacked = null;
  function plotly() {
    unpacked ??= (async () => {
      const bytes = Uint8Array.from(atob($("plotly").textContent), (c) => c.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
      return window.Plotly;
    })();
    return unpacked;
  }

  /* ---- what all charts have in common ---- */
  const config = { displayModeBar: false, responsive: true, showTips: false };
  function axis(more) {
    return { color: css("--soft"), gridcolor: css("--rule"), linecolor: css("--rule"), zeroline: false, fixedrange: true, tickfont: { size: 12 }, automargin: true, ...more };
  }
  // Whole layers, about ten of them.
  function layers(numbers, more) {
    return axis({ title: { text: "layer", font: { size: 12 }, standoff: 6 }, showgrid: false, tick0: 0, dtick: Math.max(1, Math.ceil(numbers.length / 10)), ...more });
  }
  function layout(more) {
    return {
      font: { family: css("--sans"), size: 12, color: css("--ink") }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 46, r: 12, t: 8, b: 40 }, showlegend: false, hovermode: "x", dragmode: false,
      hoverlabel: { bgcolor: css("--ink"), font: { color: css("--paper"), family: css("--sans"), size: 12 }, bordercolor: css("--ink") }, ...more,
    };
  }
  const heightOf = (element) => Math.max(element.classList.contains("tall") ? 400 : 300, 0);
  function draw(P, element, traces, plan) {
    if (!element.dataset.drawn) { element.textContent = ""; element.dataset.drawn = "1"; }
    return P.react(element, traces, plan, config);
  }

  /* ---- layer curves ---- */
  const metricSelect = $("metric"), acrossSelect = $("across");
  if (metricSelect) {
    for (const [key, name] of Object.entries(data.metrics)) metricSelect.add(new Option(name, key, false, key === data.scoring));
    metricSelect.addEventListener("change", () => redraw("curve"));
  }
  if (acrossSelect) acrossSelect.addEventListener("change", () => redraw("curve"));
  // Small charts share one scale, so that a flat curve looks flat.
  function scale(metric) {
    const all = data.concepts.flatMap((concept) => concept.runs.flatMap((run) => [...(run.means[metric] || []), ...(metric === run.scoring && run.interval ? run.interval.flat() : []), ...(metric === run.scoring ? [run.chance] : [])])).filter((v) => v !== null);
    const [low, high] = [Math.min(...all), Math.max(...all)], room = 0.04 * (high - low || 1);
    return [low - room, high + room];
  }
  const places = (run) => (acrossSelect && acrossSelect.value === "fraction" ? run.numbers.map((n) => n / Math.max(run.total, 1)) : run.numbers);

  function curve(P, element) {
    const concept = data.concepts[+element.dataset.concept];
    const metric = metricSelect.value, several = data.lines.length > 1, small = !element.classList.contains("tall");
    const traces = [], shapes = [], key = [];
    const skip = { hoverinfo: "skip", mode: "lines", line: { width: 0 } };
    for (const run of concept.runs) {
      const x = places(run), y = run.means[metric] || [], colour = series(run.line), scored = metric === run.scoring;
      const unit = acrossSelect && acrossSelect.value === "fraction" ? 1 / Math.max(run.total, 1) : 1;
      if (!several && scored && run.null !== null && run.null !== undefined) {
        const top = Array.isArray(run.null) ? run.null : x.map(() => run.null);
        traces.push({ ...skip, x, y: x.map(() => run.chance) }, { ...skip, x, y: top, fill: "tonexty", fillcolor: veil(css("--null"), 0.22) });
        key.push(["--null", "area", "95 % of permutations"]);
      }
      if (scored && run.interval && concept.runs.length <= 3) {
        traces.push({ ...skip, x, y: run.interval.map((v) => v[0]) }, { ...skip, x, y: run.interval.map((v) => v[1]), fill: "tonexty", fillcolor: veil(colour, several ? 0.1 : 0.18) });
        if (!several) key.push(["--s0", "area", "95 % interval"]);
      }
      if (!several) run.references.forEach((reference, index) => {
        const values = reference.means[metric];
        if (!values) return;
        const one = values.length === 1;
        const at = one ? [x[0], x[x.length - 1]] : reference.numbers.map((n) => (n * run.total * unit) / Math.max(reference.total, 1));
        traces.push({ x: at, y: one ? [values[0], values[0]] : values, mode: "lines", line: { color: series([4, 2, 3, 5, 6][index % 5]), width: 1.5, dash: "dash" }, hoverinfo: "skip" });
        key.push([`--s${[4, 2, 3, 5, 6][index % 5]}`, "dash", reference.name + (one ? ` ${show(values[0], 2)}` : "")]);
      });
      if (!several && run.says !== null && /accuracy/.test(metric)) {
        traces.push({ x: [x[0], x[x.length - 1]], y: [run.says, run.says], mode: "lines", line: { color: css("--ink"), width: 1.5, dash: "dot" }, hoverinfo: "skip" });
        key.push(["--ink", "dots", `what the model says ${show(run.says, 2)}`]);
      }
      const said = run.numbers.map((n, i) => {
        const around = scored && run.interval ? ` [${show(run.interval[i][0])}, ${show(run.interval[i][1])}]` : "";
        const above = scored && !several && run.null !== null ? `, permutations ${show(Array.isArray(run.null) ? run.null[i] : run.null)}` : "";
        const unsure = run.converged && run.converged[i] !== null && run.converged[i] < 1 ? ", not converged" : "";
        return `${several ? data.lines[run.line] + ", " : ""}layer ${n} of ${run.total}: ${show(y[i])}${around}${above}${unsure}`;
      });
      traces.push({ x, y, customdata: said, mode: small || x.length > 60 ? "lines" : "lines+markers", line: { color: colour, width: 2.25, dash: ["solid", "dash", "dot"][Math.floor(run.line / 7) % 3] }, marker: { size: 5, color: colour }, hoverinfo: "none", name: "curve" });
      if (!several) key.unshift(["--s0", "", data.metrics[metric]]);
      const at = run.depth.number;
      if (at !== null && scored) {
        if (!several) {
          const [low, high] = run.depth.interval_numbers || [at, at];
          shapes.push({ type: "rect", xref: "x", yref: "paper", x0: low * unit, x1: high * unit, y0: 0, y1: 1, fillcolor: veil(css("--depth"), 0.1), line: { width: 0 }, layer: "below" });
          shapes.push({ type: "line", xref: "x", yref: "paper", x0: at * unit, x1: at * unit, y0: 0, y1: 1, line: { color: css("--depth"), width: 1.5 } });
          key.push(["--depth", "", `depth: layer ${at}`]);
        }
        const near = run.numbers.indexOf(at);
        if (near >= 0) traces.push({ x: [at * unit], y: [y[near]], mode: "markers", marker: { size: 9, color: css("--card"), line: { color: several ? colour : css("--depth"), width: 2 } }, hoverinfo: "skip" });
      }
      if (metric !== "log_loss" && metric !== "v_information") shapes.push({ type: "line", xref: "paper", yref: "y", x0: 0, x1: 1, y0: run.chance, y1: run.chance, line: { color: css("--faint"), width: 1, dash: "dot" } });
    }
    if ($("curve-legend")) legend($("curve-legend"), key);
    const title = acrossSelect && acrossSelect.value === "fraction" ? "relative depth" : `layer`;
    element._readable = traces.map((trace, i) => (trace.name === "curve" ? i : -1)).filter((i) => i >= 0);
    return draw(P, element, traces, layout({
      height: small ? 210 : heightOf(element), shapes, margin: small ? { l: 38, r: 8, t: 6, b: 34 } : { l: 52, r: 14, t: 8, b: 44 },
      xaxis: layers(concept.runs[0].numbers, title === "layer" ? {} : { title: { text: title, font: { size: 12 }, standoff: 6 }, range: [-0.03, 1.03], tickvals: [0, 0.25, 0.5, 0.75, 1], ticktext: ["0", "¼", "½", "¾", "1"] }),
      yaxis: axis({ ...(data.concepts.length > 1 ? { range: scale(metric) } : {}), title: small ? undefined : { text: data.metrics[metric], font: { size: 12 } }, nticks: small ? 5 : 7 }),
    }));
  }
  function legend(list, entries) {
    list.textContent = "";
    for (const [colour, kind, words] of entries) {
      const item = document.createElement("li"), swatch = document.createElement("i");
      swatch.className = `swatch ${kind}`; swatch.style.setProperty("--c", `var(${colour})`);
      item.append(swatch, words); list.append(item);
    }
  }

  /* ---- separation, cosine ---- */
  function separation(P, element) {
    const run = data.concepts[0].runs[0], { separation: apart, margin } = data.geometry;
    const said = run.numbers.map((n, i) => `layer ${n}: separation ${show(apart[i], 2)}, margin ${show(margin[i], 2)}`);
    const line = (y, index, dash) => ({ x: run.numbers, y, customdata: said, mode: "lines", line: { color: series(index), width: 2.25, dash }, hoverinfo: "none" });
    legend(element.nextElementSibling, [["--s0", "", "separation d′"], ["--s4", "dash", "margin"]]);
    element._readable = [0];
    const at = run.depth.number;
    return draw(P, element, [line(apart, 0, "solid"), line(margin, 4, "dash")], layout({
      height: 300, xaxis: layers(run.numbers), yaxis: axis({ title: { text: "standard deviations", font: { size: 12 } } }),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: css("--faint"), width: 1, dash: "dot" } },
        ...(at === null ? [] : [{ type: "line", yref: "paper", x0: at, x1: at, y0: 0, y1: 1, line: { color: css("--depth"), width: 1.5 } }])],
    }));
  }
  function audit(P, element) {
    const run = data.concepts[0].runs[0], y = run.means[run.scoring], naive = data.naive;
    const said = run.numbers.map((n, i) => `layer ${n}: ${show(y[i])}, with groups ignored ${show(naive[i])}`);
    legend(element.nextElementSibling, [["--s0", "", "the splits used"], ["--s3", "dash", "groups ignored"]]);
    element._readable = [0];
    const line = (values, index, dash) => ({ x: run.numbers, y: values, customdata: said, mode: "lines", line: { color: series(index), width: 2.25, dash }, hoverinfo: "none" });
    return draw(P, element, [line(y, 0, "solid"), line(naive, 3, "dash")], layout({
      height: 300, xaxis: layers(run.numbers), yaxis: axis({ title: { text: data.metrics[run.scoring], font: { size: 12 } } }),
      shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: run.chance, y1: run.chance, line: { color: css("--faint"), width: 1, dash: "dot" } }],
    }));
  }
  function cosine(P, element) {
    const run = data.concepts[0].runs[0], { cosine: z, cosine_floor: floor } = data.geometry;
    const said = z.map((row, i) => row.map((value, j) => `layers ${run.numbers[i]} and ${run.numbers[j]}: ${show(value, 2)}` + (floor ? ` (with themselves ${show(floor[i], 2)} and ${show(floor[j], 2)})` : "")));
    return draw(P, element, [{ type: "heatmap", x: run.numbers, y: run.numbers, z, customdata: said, zmin: -1, zmax: 1, hoverinfo: "none",
      colorscale: [[0, css("--s1")], [0.5, css("--wash")], [1, css("--s0")]], colorbar: { thickness: 10, outlinewidth: 0, tickvals: [-1, 0, 1], tickfont: { size: 11, color: css("--soft") } } }], layout({
      height: 300, hovermode: "closest", margin: { l: 40, r: 8, t: 8, b: 40 },
      xaxis: layers(run.numbers, { constrain: "domain" }), yaxis: axis({ showgrid: false, autorange: "reversed", scaleanchor: "x", constrain: "domain" }),
    }));
  }

  /* ---- the space view ---- */
  const slider = $("layer"), symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x"], tones = [1, 0, 2, 3, 4, 5, 6];
  let spaceRange = null, playing = null;
  function spread(rows) {
    const all = rows.flat().filter((v) => v !== null).map(Math.abs).sort((a, b) => a - b);
    return (all[Math.floor(all.length * 0.995)] || 1) * 1.08;
  }
  function spaceTraces(layer) {
    const space = data.space, n = space.label.length;
    return space.classes.map((name, label) => {
      const members = [...Array(n).keys()].filter((i) => space.label[i] === label), tone = series(tones[label % 7]);
      // Where there is no second direction, examples are spread evenly so that none hides another.
      return { x: members.map((i) => space.x[layer][i]), y: members.map((i) => (space.y ? space.y[layer][i] : ((i * 0.618) % 1) * 3 - 1.5)), customdata: members,
        mode: "markers", marker: { size: 7, color: tone, opacity: 0.72, symbol: symbols[label % 7], line: { width: 0.5, color: css("--card") } }, hoverinfo: "none" };
    });
  }
  function heaps(layer) {
    const space = data.space, bins = 48, [low, high] = [-spaceRange, spaceRange], width = (high - low) / bins;
    return space.classes.map((name, label) => {
      const counts = new Array(bins).fill(0);
      let total = 0;
      space.x[layer].forEach((v, i) => { if (space.label[i] === label && v !== null) { counts[Math.max(0, Math.min(bins - 1, Math.floor((v - low) / width)))] += 1; total += 1; } });
      const soft = counts.map((c, i) => ((counts[i - 2] || 0) + 2 * (counts[i - 1] || 0) + 3 * c + 2 * (counts[i + 1] || 0) + (counts[i + 2] || 0)) / 9 / Math.max(total, 1));
      return { x: soft.map((_, i) => low + (i + 0.5) * width), y: soft, yaxis: "y2", mode: "lines", fill: "tozeroy", fillcolor: veil(series(tones[label % 7]), 0.22), line: { color: series(tones[label % 7]), width: 1.5 }, hoverinfo: "skip" };
    });
  }
  function space(P, element) {
    spaceRange ??= spread(data.space.x);
    const run = data.concepts[0].runs[0], layer = +slider.value;
    const up = data.space.y ? spread(data.space.y) : 2;
    const number = run.numbers[layer], score = run.means[run.scoring][layer];
    $("layer-name").textContent = `layer ${number} of ${run.total} · ${show(score, 2)}`;
    slider.setAttribute("aria-valuetext", `layer ${number} of ${run.total}, ${data.metrics[run.scoring]} ${show(score, 2)}`);
    const along = data.space.several ? "first axis of the probes' scores" : "along the probe, in standard deviations within the classes";
    return draw(P, element, [...spaceTraces(layer), ...heaps(layer)], layout({
      height: heightOf(element) + 40, hovermode: "closest", margin: { l: 30, r: 12, t: 4, b: 42 },
      xaxis: axis({ range: [-spaceRange, spaceRange], title: { text: along, font: { size: 12 }, standoff: 6 }, showgrid: false }),
      yaxis: axis({ range: [-up, up], domain: [0, 0.78], showticklabels: false, showgrid: false, title: { text: data.space.y ? "across" : "", font: { size: 12 } } }),
      yaxis2: axis({ domain: [0.81, 1], showticklabels: false, showgrid: false, rangemode: "tozero" }),
      shapes: data.space.several ? [] : [{ type: "line", yref: "paper", x0: 0, x1: 0, y0: 0, y1: 1, line: { color: css("--faint"), width: 1, dash: "dot" } }],
    }));
  }
  if (slider && data.space) {
    const run = data.concepts[0].runs[0], found = run.numbers.indexOf(run.depth.number);
    slider.value = found >= 0 ? found : run.numbers.length - 1;
    slider.addEventListener("input", () => redraw("space"));
    legend($("space-legend"), data.space.classes.map((name, label) => [`--s${tones[label % 7]}`, `point${label % 3}`, name]));
    const stop = () => { clearInterval(playing); playing = null; $("play").textContent = "▶"; $("play").setAttribute("aria-label", "Play through the layers"); };
    $("play").addEventListener("click", () => {
      if (playing) return stop();
      if (+slider.value === +slider.max) slider.value = 0;
      $("play").textContent = "❚❚"; $("play").setAttribute("aria-label", "Stop");
      playing = setInterval(() => { slider.value = +slider.value + 1; redraw("space"); if (+slider.value === +slider.max) stop(); }, calm ? 900 : 320);
    });
    $("points").addEventListener("toggle", listPoints);
    slider.addEventListener("change", listPoints);
  }
  function listPoints() {
    if (!$("points").open) return;
    const { x, label, text, index, classes } = data.space, layer = +slider.value;
    const table = document.createElement("table"); table.className = "data texts";
    const head = table.createTHead().insertRow();
    for (const words of ["example", "class", "along the probe"]) { const cell = document.createElement("th"); cell.scope = "col"; cell.textContent = words; head.append(cell); }
    const body = table.createTBody();
    [...label.keys()].sort((a, b) => x[layer][a] - x[layer][b]).forEach((i) => {
      const row = body.insertRow(), said = document.createElement("bdi");
      said.textContent = text ? text[i] : `example ${index[i] + 1}`; row.insertCell().append(said);
      row.insertCell().textContent = classes[label[i]]; row.insertCell().textContent = show(x[layer][i], 2);
    });
    $("points").querySelector("div").replaceChildren(table);
  }

  /* ---- hover, keys ---- */
  function listen(element) {
    if (element._listening) return;
    element._listening = true;
    element.on("plotly_hover", (event) => {
      const points = event.points.filter((p) => p.customdata !== undefined), { clientX: x, clientY: y } = event.event;
      if (!points.length) return hush();
      if (element.dataset.chart !== "space") return tell([...new Set(points.map((p) => p.customdata))].join("\n"), x, y);
      const i = points[0].customdata, s = data.space;
      tell(s.text ? s.text[i] : `example ${s.index[i] + 1}`, x, y, `${s.classes[s.label[i]]} · ${show(s.x[+slider.value][i], 2)}`);
    });
    element.on("plotly_unhover", hush);
    element.addEventListener("pointerleave", hush);
  }
  function keys(element) {
    let at = -1;
    element.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      if (element.dataset.chart === "space") { slider.value = +slider.value + step; redraw("space"); return; }
      if (!element._readable || !element.data) return;
      const said = element._readable.map((i) => element.data[i].customdata), n = said[0].length;
      at = Math.max(0, Math.min(n - 1, at + step));
      const box = element.getBoundingClientRect();
      tell(said.map((words) => words[Math.min(at, words.length - 1)]).join("\n"), box.left + 60 + ((box.width - 120) * at) / Math.max(n - 1, 1), box.top + box.height / 2);
    });
    element.addEventListener("blur", hush);
  }

  /* ---- draw what is seen; draw it again when something changes ---- */
  const kinds = { curve, separation, audit, cosine, space };
  const charts = [...document.querySelectorAll("[data-chart]")];
  async function render(element) {
    const P = await plotly();
    const drawn = kinds[element.dataset.chart](P, element);
    // What plotly measures texts with: out of sight, but screen readers would name it an image without a name.
    $("js-plotly-tester")?.setAttribute("aria-hidden", "true");
    await drawn;
    listen(element);
  }
  const fail = (error) => { console.error(error); };
  function redraw(kind) { for (const element of charts) if (element.dataset.drawn && (!kind || element.dataset.chart === kind)) render(element).catch(fail); }
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) drawChart(entry.target);
  }, { rootMargin: "300px" });
  function drawChart(element) { seen.unobserve(element); element.dataset.asked = "1"; return render(element).catch(fail); }
  // Then, one at a time, what is not in sight yet: paper and pictures of the page show all of it.
  const idle = window.requestIdleCallback || ((call) => setTimeout(call, 100));
  function drawRest() {
    const next = charts.find((element) => !element.dataset.asked && element.offsetParent);
    if (next) drawChart(next).then(() => idle(drawRest));
  }
  for (const element of charts) { keys(element); }
  // The page is painted before the library is unpacked.
  requestAnimationFrame(() => setTimeout(() => { for (const element of charts) seen.observe(element); setTimeout(() => idle(drawRest), 500); }, 0));
  addEventListener("beforeprint", () => redraw());

  /* ---- theme, filter, copy ---- */
  const themes = ["auto", "light", "dark"], names = { auto: "as the system", light: "light", dark: "dark" }, signs = { auto: "◐", light: "☀", dark: "☾" };
  function setTheme(theme) {
    root.dataset.theme = theme;
    $("theme").textContent = signs[theme]; $("theme").setAttribute("aria-label", `Colours: ${names[theme]}`); $("theme").title = `Colours: ${names[theme]}`;
    redraw();
  }
  $("theme").addEventListener("click", () => setTheme(themes[(themes.indexOf(root.dataset.theme) + 1) % 3]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => redraw());
  if ($("filter")) $("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const item of $("verdicts").children) item.hidden = !words.every((word) => item.dataset.words.includes(word));
  });
  for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    try { await navigator.clipboard.writeText(code.textContent); button.textContent = "copied"; }
    catch { getSelection().selectAllChildren(code); button.textContent = "press Ctrl+C"; }
    setTimeout(() => { button.textContent = "copy"; }, 2000);
  });
})();
