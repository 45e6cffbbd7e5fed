/* Small things of every page: countdowns that run, the browser's own time zone to choose, and parts that stay fresh. */
"use strict";

(function () {
  let readAt = Date.now();

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

  function parts() {
    return Array.from(document.querySelectorAll("[data-refresh]"));
  }

  /* The page as the service makes it now; null when it does not answer, or wants a login first. */
  async function readAnew() {
    try {
      const answer = await fetch(window.location.href, { cache: "no-store" });
      if (!answer.ok || answer.redirected) {
        return null;
      }
      return new DOMParser().parseFromString(await answer.text(), "text/html");
    } catch (error) {
      return null;
    }
  }

  function target(element) {
    return element.getAttribute("href") || element.getAttribute("formaction");
  }

  /* The keyboard stays on the link or button it was on. A part that asks for no more of it has come to its end. */
  function replace(part, fresh) {
    if (!("refresh" in fresh.dataset)) {
      delete part.dataset.refresh;
    }
    if (part.innerHTML === fresh.innerHTML) {
      return;
    }
    const focused = part.contains(document.activeElement) ? target(document.activeElement) : null;
    part.replaceChildren(...fresh.childNodes);
    if (focused) {
      Array.from(part.querySelectorAll("a, button")).find((one) => target(one) === focused)?.focus();
    }
  }

  async function refresh() {
    if (document.hidden || !parts().length) {
      return;
    }
    const page = await readAnew();
    const found = page ? parts().map((part) => [part, page.getElementById(part.id)]) : [];
    const isFresh = found.length > 0 && found.every(([, fresh]) => fresh);
    if (isFresh) {
      readAt = Date.now();
      found.forEach(([part, fresh]) => replace(part, fresh));
      count();
    }
    document.querySelectorAll("[data-stale]").forEach((notice) => {
      notice.hidden = isFresh;
      notice.querySelector("span").textContent = left(Math.round((Date.now() - readAt) / 1000)) + " ago";
    });
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
  if (parts().length) {
    window.setInterval(refresh, Number(parts()[0].dataset.refresh) * 1000);
    document.addEventListener("visibilitychange", refresh);
  }
  document.querySelectorAll("[data-own-zone]").forEach(offerOwnZone);
})();
