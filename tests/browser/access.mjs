// Keys, budgets, audit and roles against the built program: what the pages show is what the proxy does.

import { start } from "./program.mjs";

const ADMIN = "an-admin-of-the-browser-tests";
const OPERATOR = "an-operator-of-the-browser-tests";
const VIEWER = "a-viewer-of-the-browser-tests";

/// Runs the tests on a proxy of their own.
export async function accessTests(program, { test, holds, settled, shoot }) {
  const own = await start(program, {
    DASHBOARD_API_KEY: ADMIN,
    DASHBOARD_OPERATOR_KEY: OPERATOR,
    DASHBOARD_VIEWER_KEY: VIEWER,
    DATA_DIR: "data",
    ADMIN_TRUSTED_PROXIES: "127.0.0.1",
    ADMIN_ROLES: "group:oncall=operator,group:staff=viewer",
  });
  const api = `${own.base}/admin/api/v1`;

  /// Opens a page as the holder of a key of the dashboard.
  const enter = async (page, path, key = ADMIN) => {
    await page.goto(`${own.base}/admin${path}#key=${encodeURIComponent(key)}`);
    await page.locator("h1").waitFor();
    await settled(page);
  };
  const send = (page) => page.locator('form button[type="submit"]').click();
  const asked = async (path, body) => {
    const res = await fetch(api + path, {
      method: body ? "POST" : "GET",
      headers: { "authorization": `Bearer ${ADMIN}`, "content-type": "application/json" },
      body: body && JSON.stringify(body),
    });
    return res.json();
  };
  /// The status of a generation with a key of the proxy.
  const use = async (key) => {
    const res = await fetch(`${own.main}/v1/messages`, {
      method: "POST",
      headers: { "content-type": "application/json", ...(key && { "x-api-key": key }) },
      body: JSON.stringify({
        model: "claude-sonnet-4-5",
        max_tokens: 16,
        stream: true,
        messages: [{ role: "user", content: "hi" }],
      }),
    });
    await res.text();
    return res.status;
  };
  const becomes = async (key, status) => {
    for (let i = 0; i < 100; i++) {
      if ((await use(key)) === status) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    holds(false, `the key's status becomes ${status}`);
  };
  const shown = async (page) =>
    (await page.locator(".once code").first().textContent()).match(/ap_\w+/)?.[0] ?? "";
  const out = { isIn: false };

  await test("a real key is created, seen once, rotated and revoked", out, async (page) => {
    await enter(page, "/keys");
    await page.locator(".empty-title", { hasText: "No keys" }).waitFor();
    holds((await use(null)) === 200, "without keys of its own the proxy is open");
    await page.locator("button", { hasText: "New key" }).click();
    await page.locator('input[name="name"]').fill("laptop of Ada");
    await page.locator('input[name="user"]').fill("ada");
    await page.locator('input[name="team"]').fill("core");
    await page.locator('input[name="budget"]').fill("5");
    await page.locator('input[name="zone"]').fill("Europe/Berlin");
    await page.locator('input[name="rpm"]').fill("100");
    await shoot(page, "real-keys-new-1280-light");
    await send(page);
    const first = await shown(page);
    holds(/^ap_[0-9A-Za-z]{10}_[0-9A-Za-z]{38}$/.test(first), "a whole key is shown");
    await shoot(page, "real-keys-once-1280-light");
    await becomes(first, 200);
    holds((await use(null)) === 401, "from now on a key is needed");
    await page.locator(".once button", { hasText: "It is copied" }).click();
    holds(!(await page.content()).includes(first), "it is shown once");
    await page.reload();
    const row = page.locator("tr", { hasText: "laptop of Ada" });
    await row.locator("td", { hasText: "ada · core" }).waitFor();
    holds((await row.textContent()).includes(`…${first.slice(-4)}`), "its end stays");
    holds(!JSON.stringify(await asked("/keys")).includes(first.slice(14)), "nor does the API have it");

    await row.locator("button", { hasText: "Rotate" }).click();
    await page.locator('select[name="overlap"]').selectOption("0s");
    await send(page);
    const second = await shown(page);
    holds(second !== first && second.slice(0, 13) === first.slice(0, 13), "another secret of the same key");
    await becomes(second, 200);
    await becomes(first, 401);
    await page.locator(".once button", { hasText: "It is copied" }).click();

    await row.locator("button", { hasText: "Revoke" }).click();
    await page.locator('input[name="reason"]').fill("the laptop was lost");
    await shoot(page, "real-keys-revoke-1280-light");
    await send(page);
    await row.locator(".badge", { hasText: "revoked" }).waitFor();
    await becomes(second, 401);
    holds((await row.locator("button").count()) === 0, "what is revoked stays so");
    await row.getByText("the laptop was lost").waitFor();
    await shoot(page, "real-keys-1280-light");
    await page.setViewportSize({ width: 390, height: 844 });
    const names = await row.locator("td.named").evaluateAll((cells) =>
      cells.map((cell) => {
        const { display, content } = getComputedStyle(cell, "::before");
        return display === "none" ? "" : content;
      }),
    );
    holds(names.length === 3 && names.every((name) => /"\w+/.test(name)), `each cell is named: ${names}`);
    await shoot(page, "real-keys-390-light");
  });

  await test("a real key that is refused says why", out, async (page, { complaints }) => {
    await enter(page, "/keys");
    await page.locator("button", { hasText: "New key" }).click();
    await page.locator('input[name="name"]').fill("misplaced");
    await page.locator('input[name="budget"]').fill("5");
    await page.locator('input[name="zone"]').fill("Mars/Olympus");
    await send(page);
    await page.locator("form [role=alert]", { hasText: "Mars/Olympus" }).waitFor();
    await page.locator('input[name="zone"]').fill("Asia/Shanghai");
    await page.locator('input[name="sources"]').fill("10.0.0.0/99");
    await send(page);
    await page.locator("form [role=alert]", { hasText: "10.0.0.0/99" }).waitFor();
    complaints.splice(0);
  });

  await test("a limit that is set holds, and its spend is seen", out, async (page) => {
    await enter(page, "/keys");
    await page.locator("button", { hasText: "New key" }).click();
    await page.locator('input[name="name"]').fill("small budget");
    await page.locator('input[name="team"]').fill("core");
    await page.locator('input[name="budget"]').fill("0.0001");
    await page.locator('select[name="period"]').selectOption("total");
    await send(page);
    const small = await shown(page);
    await becomes(small, 200);
    // one generation costs more than that
    await becomes(small, 429);
    await page.goto(`${own.base}/admin/spend?by=key`);
    const budget = page.locator(".budget", { hasText: "small budget" });
    await budget.locator('[role="meter"][aria-valuenow="100"]').waitFor();
    await budget.locator(".badge").waitFor();
    await page.locator(".notice", { hasText: "small budget" }).waitFor();
    await shoot(page, "real-spend-1280-light");
    await page.setViewportSize({ width: 390, height: 844 });
    const wide = await page.evaluate(() => document.scrollingElement.scrollWidth - innerWidth);
    holds(wide <= 0, `nothing sticks out: ${wide} px`);
    await shoot(page, "real-spend-390-light");
  });

  await test("an operator adds to a budget that is spent", out, async (page, { complaints }) => {
    await enter(page, "/spend?by=key", OPERATOR);
    const budget = page.locator(".budget", { hasText: "small budget" });
    await budget.locator("button", { hasText: "Add to the budget" }).click();
    await page.locator('input[name="amount"]').fill("a lot");
    await page.locator('input[name="reason"]').fill("the release");
    await send(page);
    await page.locator(".field-fault", { hasText: "no amount" }).waitFor();
    complaints.splice(0);
    await page.setViewportSize({ width: 390, height: 844 });
    await shoot(page, "real-grant-390-light");
    await page.locator('input[name="amount"]').fill("5");
    await send(page);
    await budget.locator('[role="meter"][aria-valuenow="0"]').waitFor();
    holds((await page.locator("form.ask").count()) === 0, "the form is gone");
    const { items } = await asked("/audit?limit=1000");
    const line = items.find((line) => line.action === "limits.grant" && line.result === "done");
    holds(line?.actor.id === "dashboard-operator", `the audit has the operator: ${JSON.stringify(line)}`);
  });

  await test("the audit tells who did what, and is searched", out, async (page) => {
    const file = `${"of_all_".repeat(8)}.toml`;
    await asked("/keys/apply", { text: "[org]\nrpm = 60000\n", file });
    await enter(page, "/audit");
    await page.locator(".audit-line", { hasText: "the laptop was lost" }).first().waitFor();
    await page.locator(".audit-why", { hasText: "Mars/Olympus" }).first().waitFor();
    await shoot(page, "real-audit-1280-light");
    await page.locator(".audit-line", { hasText: file }).first().waitFor();
    // a long target takes no room from the time and the author
    await page.setViewportSize({ width: 390, height: 844 });
    const heights = await page.evaluate(() =>
      [...document.querySelectorAll(".audit-line time")].map((time) => time.getBoundingClientRect().height),
    );
    holds(
      heights.every((height) => height > 0 && height < 30),
      `each time is one line: ${heights}`,
    );
    await shoot(page, "real-audit-390-light");
    await page.setViewportSize({ width: 1280, height: 844 });
    await page.locator("label", { hasText: "Action" }).locator("input").fill("key.rotate");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => location.search.includes("action=key.rotate"));
    await page.waitForFunction(() =>
      [...document.querySelectorAll(".audit-line")].every((line) => line.textContent.includes("key.rotate")),
    );
    holds((await page.locator(".audit-line").count()) > 0, "the rotation is found");
    await page.locator("button", { hasText: "Verify the chain" }).click();
    await page.locator("[role=status]", { hasText: "The chain is whole" }).waitFor();
    const text = JSON.stringify(await asked("/audit?limit=1000"));
    holds(!/ap_[0-9A-Za-z]{10}_[0-9A-Za-z]{6}/.test(text), "no line has a key");
    holds(!text.includes(ADMIN) && !text.includes(VIEWER), "nor one of the dashboard");
  });

  await test("a viewer sees, and changes nothing", out, async (page, { complaints }) => {
    await enter(page, "/keys", VIEWER);
    await page.locator("tr", { hasText: "small budget" }).waitFor();
    await page.locator(".side .who", { hasText: "Viewer" }).waitFor();
    holds((await page.locator("button", { hasText: "New key" }).count()) === 0, "no key is created");
    holds((await page.locator("tbody button").count()) === 0, "none is rotated or revoked");
    await shoot(page, "real-keys-viewer-1280-light");
    for (const path of ["/spend", "/audit", "/requests", "/usage", "/config"]) {
      await page.goto(`${own.base}/admin${path}`);
      await settled(page);
      holds((await page.locator(".notice-bad").count()) === 0, `${path} is shown`);
      holds((await page.locator(".budget button").count()) === 0, "nothing is added to a budget");
    }
    // what the pages leave out the server refuses
    const refused = await page.evaluate(async () => {
      const change = (path, method, body) =>
        fetch(`/admin/api/v1${path}`, {
          method,
          headers: { "content-type": "application/json" },
          body: JSON.stringify(body),
        }).then(async (res) => [res.status, (await res.json()).error?.code].join(" "));
      return [
        await change("/keys", "POST", { name: "of a viewer" }),
        await change("/keys/small%20budget/revoke", "POST", { reason: "why not" }),
        await change("/limits/team:core", "PUT", { limits: [] }),
        await change("/requests/req_x/end", "POST", {}),
      ];
    });
    holds(
      refused.every((it) => it === "403 role_forbidden"),
      refused.join(),
    );
    complaints.splice(0);
    await page.goto(`${own.base}/admin/audit?actor=dashboard-viewer&action=key.revoke`);
    await page.locator(".audit-line .badge", { hasText: "refused" }).waitFor();
    await shoot(page, "real-audit-viewer-1280-light");
  });

  await test("an operator revokes, and creates nothing", out, async (page) => {
    await asked("/keys", { name: "spare" });
    await enter(page, "/keys", OPERATOR);
    const row = page.locator("tr", { hasText: "spare" });
    await row.waitFor();
    holds((await page.locator("button", { hasText: "New key" }).count()) === 0, "no key is created");
    holds((await page.locator("button", { hasText: "Rotate" }).count()) === 0, "none is rotated");
    await shoot(page, "real-keys-operator-1280-light");
    await row.locator("button", { hasText: "Revoke" }).click();
    await page.locator('input[name="reason"]').fill("not needed");
    await send(page);
    await row.locator(".badge", { hasText: "revoked" }).waitFor();
  });

  await test("a proxy's user needs no key, and has its role", out, async (page, { context }) => {
    await context.setExtraHTTPHeaders({ "remote-user": "ada@example.com", "remote-groups": "staff,oncall" });
    await page.goto(`${own.base}/admin/keys`);
    await page.locator("tr", { hasText: "small budget" }).waitFor();
    await page.locator(".side .who", { hasText: "ada@example.com · Operator" }).waitFor();
    holds(
      (await page.locator("button", { hasText: "Sign out" }).count()) === 0,
      "there is no session to leave",
    );
    await page.locator(".link-state.tone-good").first().waitFor();
    await shoot(page, "real-keys-user-1280-light");
    await page.setViewportSize({ width: 390, height: 844 });
    await page.locator(".menu-button button").click();
    await page.locator("dialog .who", { hasText: "ada@example.com" }).waitFor();
    await shoot(page, "real-user-390-light");
    await page.goto(`${own.base}/admin/audit?actor=ada%40example.com`);
    await page.locator(".audit-line", { hasText: "session.open" }).first().waitFor();
  });

  await test("a proxy's user without a role is told so", out, async (page, { context }) => {
    await context.setExtraHTTPHeaders({ "remote-user": "eve", "remote-groups": "guests" });
    await page.goto(`${own.base}/admin/keys`);
    await page.locator(".door [role=alert]", { hasText: "eve is signed in by the proxy" }).waitFor();
    await shoot(page, "real-no-role-1280-light");
    // a key that is shown deliberately counts
    await page.fill("#key", VIEWER);
    await page.keyboard.press("Enter");
    await page.locator(".side .who", { hasText: "eve · Viewer" }).waitFor();
    await page.locator(".side button", { hasText: "Sign out" }).click();
    await page.locator(".door [role=alert]", { hasText: "eve" }).waitFor();
  });

  await own.stop();
}
