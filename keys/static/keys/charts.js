/* Draws each figure.chart from the JSON beside it, in the colours of the page's theme. Chart.js does the drawing. */
"use strict";

(function () {
  const MOST_LETTERS = 24;
  const drawn = [];

  const formats = {
    usd: (value) => "$" + value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 9 }),
    count: (value) => value.toLocaleString("en-US"),
    ms: (value) => value.toLocaleString("en-US") + " ms",
  };

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
  }

  /* A long name would leave no room for its bar; the table below has it whole. */
  function clipped(value) {
    const name = this.getLabelForValue(value);
    return name.length > MOST_LETTERS ? name.slice(0, MOST_LETTERS - 1) + "…" : name;
  }

  function dataset(chart, series) {
    const tone = colour("chart-" + series.tone);
    const isLine = chart.kind === "line";
    return {
      label: series.name,
      data: series.values,
      backgroundColor: tone,
      borderColor: tone,
      borderWidth: isLine ? 2 : 0,
      pointRadius: isLine ? 2 : 0,
      spanGaps: false,
    };
  }

  function options(chart) {
    const format = formats[chart.unit];
    const isBar = chart.kind === "bar";
    const text = colour("body-fg");
    const line = colour("hairline-color");
    const values = {
      stacked: isBar,
      beginAtZero: true,
      ticks: { color: text, callback: format, maxTicksLimit: 6, precision: chart.unit === "count" ? 0 : undefined },
      grid: { color: line },
    };
    const names = { stacked: isBar, ticks: { color: text, maxRotation: 0, autoSkipPadding: 12 }, grid: { display: false } };
    if (chart.across) {
      names.ticks = { color: text, autoSkip: false, callback: clipped };
    }
    return {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      indexAxis: chart.across ? "y" : "x",
      interaction: { mode: "index", intersect: false, axis: chart.across ? "y" : "x" },
      scales: chart.across ? { x: values, y: names } : { x: names, y: values },
      plugins: {
        legend: { display: chart.series.length > 1 || chart.unit === "count", position: "bottom", labels: { color: text, boxWidth: 12 } },
        tooltip: {
          callbacks: { label: (item) => " " + item.dataset.label + ": " + format(item.raw === null ? 0 : item.raw) },
        },
      },
    };
  }

  function draw(figure) {
    const chart = JSON.parse(document.getElementById(figure.dataset.chart).textContent);
    const canvas = figure.querySelector("canvas");
    if (chart.across) {
      canvas.parentElement.style.height = Math.max(120, 60 + 26 * chart.labels.length) + "px";
    }
    drawn.push(
      new window.Chart(canvas, {
        type: chart.kind,
        data: { labels: chart.labels, datasets: chart.series.map((series) => dataset(chart, series)) },
        options: options(chart),
      })
    );
  }

  function drawAll() {
    drawn.splice(0).forEach((chart) => chart.destroy());
    document.querySelectorAll("figure.chart").forEach(draw);
  }

  drawAll();
  new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
})();
