/* Small things of every page: countdowns that run, the browser's own time zone to choose, and a pool that stays fresh. */
"use strict";

(function () {
  const REFRESH_SECONDS = 15;

  function left(seconds) {
    const hours = Math.floor(seconds / 3600);
    const minutes = Math.floor((seconds % 3600) / 60);
    const rest = String(seconds % 60).padStart(2, "0");
    return hours ? hours + ":" + String(minutes).padStart(2, "0") + ":" + rest : minutes + ":" + rest;
  }

  function count() {
    document.querySelectorAll("[data-until]").forEach((element) => {
      const seconds = Math.ceil((Date.parse(element.dataset.until) - Date.now()) / 1000);
      element.textContent = seconds > 0 ? left(seconds) + " left" : "due now";
    });
  }

  async function refresh(part) {
    if (document.hidden || part.contains(document.activeElement)) {
      return;
    }
    try {
      const answer = await fetch(window.location.href, { headers: { "X-Requested-With": "fetch" } });
      if (!answer.ok || answer.redirected) {
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById(part.id);
      if (fresh) {
        part.replaceChildren(...fresh.childNodes);
        count();
      }
    } catch (error) {
      return; // the service is away for a moment: the next round tries again
    }
  }

  function offerOwnZone(button) {
    const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
    const select = document.getElementById("id_time_zone");
    if (!zone || !Array.from(select.options).some((option) => option.value === zone)) {
      return;
    }
    button.textContent = "Use this computer's zone, " + zone;
    button.hidden = false;
    button.addEventListener("click", () => {
      select.value = zone;
      select.form.requestSubmit();
    });
  }

  count();
  window.setInterval(count, 1000);
  document.querySelectorAll("[data-refresh]").forEach((part) => {
    window.setInterval(() => refresh(part), REFRESH_SECONDS * 1000);
  });
  document.querySelectorAll("[data-own-zone]").forEach(offerOwnZone);
})();
