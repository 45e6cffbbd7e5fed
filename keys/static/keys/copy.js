/* The copy buttons of what is shown once. A button names its text by aria-controls; without scripts the text can be
   selected by hand. */
"use strict";

for (const button of document.querySelectorAll("button.copy")) {
  const text = document.getElementById(button.getAttribute("aria-controls"));
  button.hidden = false;
  button.addEventListener("click", async () => {
    const said = (await copied(text)) ? "Copied" : "Press Ctrl+C to copy";
    button.querySelector("[role=status]").textContent = said;
  });
}

async function copied(text) {
  const selection = window.getSelection();
  selection.selectAllChildren(text);
  try {
    await navigator.clipboard.writeText(text.textContent);
    return true;
  } catch {
    return document.execCommand("copy"); // plain http on another host has no clipboard of its own
  }
}
