// Keeps each decision in the browser until it is saved as a file that `retry --decisions` reads.
"use strict";
const run = document.currentScript.dataset.run;
const key = "pilot " + run + " " + location.pathname;
const decisions = JSON.parse(localStorage.getItem(key) || "{}");
const panels = [...document.querySelectorAll(".dialogue[data-id]")];

function show() {
  for (const panel of panels) {
    const decision = decisions[panel.dataset.id] || {};
    for (const button of panel.querySelectorAll("button[data-verdict]")) {
      const chosen = button.dataset.verdict === decision.verdict && (button.dataset.part || null) === (decision.part || null);
      button.classList.toggle("chosen", chosen);
    }
  }
  const accepted = Object.values(decisions).filter((decision) => decision.verdict === "accepted").length;
  const decided = Object.keys(decisions).length;
  document.getElementById("count").textContent = decided + " of " + panels.length + " decided, " + accepted + " accepted";
  localStorage.setItem(key, JSON.stringify(decisions));
}

for (const panel of panels) {
  const note = panel.querySelector("input");
  note.value = (decisions[panel.dataset.id] || {}).note || "";
  note.addEventListener("input", () => {
    if (decisions[panel.dataset.id]) decisions[panel.dataset.id].note = note.value;
    show();
  });
  for (const button of panel.querySelectorAll("button[data-verdict]")) {
    button.addEventListener("click", () => {
      const decision = { verdict: button.dataset.verdict, part: button.dataset.part || null, note: note.value };
      decisions[panel.dataset.id] = decision;
      show();
    });
  }
}

document.getElementById("save").addEventListener("click", () => {
  const text = JSON.stringify({ run: run, decisions: decisions }, null, 1);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  link.download = "decisions.json";
  link.click();
  URL.revokeObjectURL(link.href);
});
show();
