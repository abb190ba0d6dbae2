'use strict';

// How often nginx is asked, and how long its answer may take, in seconds.
const INTERVAL = 2;
const INTERVAL_HIDDEN = 30;
const TIMEOUT = 10;

const BUCKETS = 90;
const BUCKETS_OF_A_MINUTE = 6;

// Limits for the age of a store, in seconds: pat-sync writes a heartbeat every 5, or every 30 at most.
const OLD = 60;
const AHEAD = -5;
const NEARLY_FULL = 0.9;

const REFUSED = {
    missing: 'no token',
    malformed: 'not of the form of a token',
    unknown: 'not in the store',
    revoked: 'revoked in the store',
    expired: 'past its expiry',
    not_yet_valid: 'too early',
    address_denied: 'from another address',
    scope_denied: 'lacks a needed scope',
    require_denied: 'auth_pat_require not met',
    stale: 'older than auth_pat_max_age',
    store_error: 'store or record unreadable',
};
const LET_IN = {
    ok: 'a valid token',
    anonymous: 'no token, optional here',
    preflight: 'a CORS preflight',
    fail_open: 'stale or store_error, let in',
};
const REASONS = Object.keys(REFUSED);
const PASSES = Object.keys(LET_IN);

let data;                    // the last answer of nginx
let clockAhead = -Infinity;  // how far its clock is ahead of this browser's, in seconds

// Numbers and times in words

const number = new Intl.NumberFormat('en').format;
const formatter = options => {
    const format = new Intl.DateTimeFormat('en', { hourCycle: 'h23', ...options });
    return seconds => format.format(seconds * 1000);
};
const clock = formatter({ timeStyle: 'medium' });
const clockWithZone = formatter({ timeStyle: 'long' });
const calendar = formatter({ dateStyle: 'medium', timeStyle: 'long' });

const total = numbers => numbers.reduce((sum, one) => sum + one, 0);
const plural = (count, word) => `${number(count)} ${word}${count === 1 ? '' : 's'}`;

function share(part, whole) {
    const percent = whole === 0 ? 0 : 100 * part / whole;
    if (percent > 0 && percent < 0.1) return '< 0.1 %';
    return `${percent < 10 ? Number(percent.toFixed(1)) : Math.round(percent)} %`;
}

function rate(count, seconds) {
    const each = count / seconds;
    if (each < 1) return `${Math.round(60 * each)}/min`;
    return `${each < 10 ? each.toFixed(1) : number(Math.round(each))}/s`;
}

function bytes(count) {
    let unit = 0;
    for (; count >= 1024 && unit < 4; unit++) count /= 1024;
    return `${count < 10 ? Number(count.toFixed(1)) : Math.round(count)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

function span(seconds) {
    const whole = Math.floor(Math.max(0, seconds));
    if (whole < 120) return `${whole} s`;
    if (whole < 600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
    if (whole < 7200) return `${Math.floor(whole / 60)} min`;
    return whole < 172800 ? `${Math.floor(whole / 3600)} h` : `${Math.floor(whole / 86400)} days`;
}

// Elements. Unchanged ones are not touched, so that selection, focus and scroll position stay.

const find = id => document.getElementById(id);

function set(element, text, attributes = {}) {
    if (element.textContent !== text) element.textContent = text;
    return mark(element, attributes);
}

function mark(element, attributes) {
    for (const [name, value] of Object.entries(attributes)) {
        if (value === null) element.removeAttribute(name);
        else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
    }
    return element;
}

function make(name, attributes = {}, ...children) {
    const element = mark(document.createElement(name), attributes);
    element.append(...children);
    return element;
}

function draw(name, attributes, ...children) {
    const element = mark(document.createElementNS('http://www.w3.org/2000/svg', name), attributes);
    element.append(...children);
    return element;
}

// Shows each item in its own element within `parent`. `create` returns [element, function that shows an item in it].
// That function outlives the call, so it must use nothing of an answer but the item.
const shown = new WeakMap();

function show(parent, items, create) {
    const parts = shown.get(parent) ?? [];
    shown.set(parent, parts);
    while (parts.length > items.length) parts.pop()[0].remove();
    items.forEach((item, at) => {
        if (at === parts.length) {
            parts.push(create(item));
            parent.append(parts[at][0]);
        }
        parts[at][1](item);
    });
}

function showHeads(table, names) {
    show(table.tHead.rows[0], names, () => {
        const head = make('th', { scope: 'col' });
        return [head, name => set(head, name.replaceAll('_', '_\u200b'))];  // where a line may break
    });
}

// Shows numbers in the cells of a row, after the existing ones.
function showNumbers(row, counts) {
    show(row, counts, () => {
        const cell = make('td');
        return [cell, count => set(cell, number(count), { class: count === 0 ? 'zero' : null })];
    });
}

// Shows how long ago `at` is, which tick() updates. null: no time.
function showAge(element, at) {
    mark(element, { 'data-at': at, 'title': at === null ? null : calendar(at) });
}

function tick() {
    const now = Date.now() / 1000 + clockAhead;
    for (const element of document.querySelectorAll('[data-at]')) {
        const age = now - Number(element.dataset.at);
        set(element, age < AHEAD ? `in ${span(-age)}` : `${span(age)} ago`);
    }
}

// Sums. `counts` has a number for each status, a history 90 of them. Requests that fail-open let in are not refused.

const sum = (names, count) => total(names.map(count)) - (names === REASONS ? count('fail_open') : 0);
const pick = (counts, names) => sum(names, name => counts[name] ?? 0);
const lately = (history, names, buckets = BUCKETS) => sum(names, name => total(history[name]?.slice(-buckets) ?? []));
const lastMinute = (history, names) => lately(history, names, BUCKETS_OF_A_MINUTE);

// The length of that minute, whose last ten seconds are not over yet.
function secondsOfLastMinute() {
    const { interval, end } = data.history;
    return (BUCKETS_OF_A_MINUTE - 1) * interval + Math.min(interval, Math.max(1, data.time - (end - interval)));
}

// The state of everything

function problemsOf(store) {
    if (!store.open) return [{ level: 'bad', text: store.problem }];
    return [
        [store.state === 'resync', 'a resync from its source is under way, and it serves what it holds'],
        [store.age > OLD, 'its source was last reached more than a minute ago'],
        [store.age < AHEAD, 'its heartbeat is in the future: are the clocks right?'],
        [store.used_bytes > NEARLY_FULL * store.map_bytes, 'its map is nearly full (map_size)'],
        [store.readers > NEARLY_FULL * store.max_readers, 'nearly all reader slots are taken'],
    ].filter(([holds]) => holds).map(([, text]) => ({ level: 'warn', text }));
}

const textOf = problems => problems.map(({ text }) => text).join('; ');
const worst = problems => problems.some(({ level }) => level === 'bad') ? 'bad' : problems.length > 0 ? 'warn' : 'ok';

function showHeadline() {
    const { stores, zone } = data;
    const problems = stores.map(store => [store, problemsOf(store)]).filter(([, found]) => found.length > 0)
        .map(([store, found]) => ({ level: worst(found), text: `${store.path}: ${textOf(found)}` }));
    const closed = stores.filter(store => !store.open).length;
    const ages = stores.filter(store => store.open && store.age !== null).map(store => store.age);
    const figures = [{ name: 'Stores open', large: `${stores.length - closed} of ${stores.length}`,
        level: closed > 0 ? 'bad' : 'ok', small: ages.length > 0 ? 'source last reached ' : 'without a source',
        at: ages.length > 0 ? data.time - Math.max(...ages) : null }];

    if (zone !== null) {
        const { requests, dry_run: dry } = data.history;
        const seconds = secondsOfLastMinute();
        const unchecked = lastMinute(requests, ['fail_open']);
        const refused = lastMinute(requests, REASONS);
        const passed = lastMinute(requests, PASSES);
        const faults = ['stale', 'store_error'];
        const surely = name => lastMinute(requests, [name]) - (faults.includes(name) ? unchecked : 0);
        const most = REASONS.reduce((one, other) => surely(other) > surely(one) ? other : one);

        figures.unshift(
            { name: 'Refused, last minute', large: rate(refused, seconds), small: refused === 0 ? 'nothing'
                : `${number(refused)}, ${share(refused, refused + passed)} of requests; most: ${most}` },
            { name: 'Let in, last minute', large: rate(passed, seconds), small: plural(passed, 'request') });
        if (pick(data.dry_run, REASONS) > 0) {
            const count = lastMinute(dry, REASONS);
            figures.push({ name: 'Dry run, last minute', large: rate(count, seconds),
                small: `${number(count)} would have been refused` });
        }
        figures.push({ name: 'Let in by fail-open', large: number(data.fail_open), level: unchecked > 0 ? 'bad' : 'ok',
            small: unchecked > 0 ? `${number(unchecked)} in the last minute` : `since ${calendar(zone.since)}` });
        if (unchecked > 0) {
            problems.unshift({ level: 'bad',
                text: `${plural(unchecked, 'request')} let in unchecked by auth_pat_fail_open in the last minute` });
        } else if (lastMinute(requests, faults) > 0) {
            problems.push({ level: 'warn', text: `${plural(lastMinute(requests, faults), 'request')}`
                + ' in the last minute met a store that is stale or can’t be read' });
        }
    }

    const level = stores.length === 0 ? 'warn' : worst(problems);
    const all = { 1: 'The store is', 2: 'Both stores are' }[stores.length] ?? `All ${stores.length} stores are`;
    const verdict = stores.length === 0 ? 'There is no store'
        : closed > 0 ? `${stores.length === 1 ? 'The store' : `${closed} of ${stores.length} stores`} can’t be read`
        : level === 'bad' ? 'Requests are let in unchecked'
        : level === 'warn' ? `${all} open, but not all is well`
        : `${all} open${ages.length > 0 ? ' and fresh' : ''}`;

    mark(find('headline'), { 'data-level': level });
    set(find('verdict'), verdict);
    document.title = `${{ ok: '', warn: '! ', bad: '✕ ' }[level]}auth_pat – ${location.host}`;
    show(find('problems'), problems, () => {
        const text = make('span');
        const element = make('li', { class: 'sign' }, text);
        return [element, problem => {
            mark(element, { 'data-level': problem.level });
            set(text, problem.text);
        }];
    });
    show(find('figures'), figures, () => {
        const [name, large, small, age] = [make('dt'), make('dd', { class: 'large' }), make('span'), make('span')];
        const element = make('div', {}, name, large, make('dd', { class: 'soft' }, small, age));
        return [element, figure => {
            mark(element, { 'data-level': figure.level ?? 'ok' });
            set(name, figure.name);
            set(large, figure.large);
            set(small, figure.small);
            if (figure.at === undefined || figure.at === null) set(age, '');
            showAge(age, figure.at ?? null);
        }];
    });
}

// The charts: refusals as stacked bars, hatched if let in nevertheless, and requests let in as a line on its own scale

const MARGIN = 46;
let pointedAt = null;  // the ten seconds that the pointer or the keyboard is at

const timeOf = bucket => data.history.end - (BUCKETS - bucket) * data.history.interval;

// The upper end of a scale that includes `most`.
function limitOf(most) {
    const unit = 10 ** Math.floor(Math.log10(Math.max(1, most)));
    return [1, 1.2, 1.6, 2, 3, 4, 6, 8, 10].map(step => step * unit)
        .find(limit => limit >= most && Number.isInteger(limit));
}

// Stacks bars on the sums in `below`, and adds to them. `edge` returns where a bucket begins.
function stack(counts, below, edge, y, gap) {
    return counts.map((count, at) => {
        if (count === 0) return '';
        const bottom = y(below[at]);
        below[at] += count;
        return `M${edge(at)} ${bottom}V${y(below[at])}H${edge(at + 1) - gap}V${bottom}Z`;
    }).join('');
}

function drawBand({ title, history, names, height, hatched, line }, top, width, edge) {
    const sums = history[names[0]].map((_, at) => total(names.map(name => history[name][at])));
    const limit = limitOf(Math.max(...sums));
    const y = value => Number((height * (1 - value / limit)).toFixed(1));
    const band = draw('g', { transform: `translate(0 ${top})` },
        draw('text', { class: 'title', x: MARGIN, y: -8 }, title));
    const begin = edge(Math.min(BUCKETS, Math.max(0, (data.zone.since - timeOf(0)) / data.history.interval)));
    band.append(draw('path', { class: 'before', d: `M${MARGIN} 0H${begin}V${height}H${MARGIN}Z` }));
    for (const value of limit % 2 === 0 ? [0, limit / 2, limit] : [0, limit]) {
        band.append(draw('path', { class: 'grid', d: `M${MARGIN} ${Math.round(y(value)) + 0.5}H${width}` }),
            draw('text', { x: MARGIN - 6, y: y(value) + 4, 'text-anchor': 'end' }, number(value)));
    }
    if (line) {
        const curve = `${MARGIN} ${y(sums[0])}${sums.map((sum, at) => `V${y(sum)}H${edge(at + 1)}`).join('')}`;
        band.append(draw('path', { class: 'area', d: `M${MARGIN} ${height}L${curve}V${height}Z` }),
            draw('path', { class: 'curve', d: `M${curve}` }));
        return band;
    }
    const below = sums.map(() => 0);
    const gap = edge(1) - edge(0) >= 4 ? 1 : 0;
    band.append(...names.map(name =>
        draw('path', { class: `bar ${name}`, d: stack(history[name], below, edge, y, gap) })));
    below.fill(0);
    const d = hatched.map(name => stack(history[name], below, edge, y, gap)).join('');
    if (d !== '') band.append(draw('path', { fill: 'url(#hatch)', d }));
    return band;
}

function showCharts() {
    if (data.zone === null) return;
    const { requests, dry_run: dry } = data.history;
    const width = find('charts').clientWidth;
    const edge = bucket => MARGIN + Math.round(bucket * (width - MARGIN) / BUCKETS);
    // The most serious reasons, those that fail-open lets in, are at the bottom.
    const names = REASONS.toReversed();
    const bands = [
        { title: 'Refused, in 10 s', history: requests, names, height: 160, hatched: ['fail_open'] },
        ...(lately(dry, REASONS) > 0
            ? [{ title: 'Dry run: would be refused, in 10 s', history: dry, names, height: 70, hatched: names }] : []),
        { title: 'Let in, in 10 s', history: requests, names: PASSES, height: 50, line: true },
    ];

    set(find('recent-title'), 'The last 15 minutes'
        + (data.zone.since > timeOf(0) ? `, counted since ${clock(data.zone.since)}` : ''));
    let top = 20;
    const parts = bands.map(band => {
        const part = drawBand(band, top, width, edge);
        top += band.height + 28;
        return part;
    });
    for (const minutes of [15, 10, 5, 0]) {
        parts.push(draw('text', { x: edge(BUCKETS * (1 - minutes / 15)), y: top - 11,
            'text-anchor': { 0: 'end', 15: 'start' }[minutes] ?? 'middle' },
            minutes === 0 ? 'now' : `−${minutes} min`));
    }
    if (pointedAt !== null) {
        parts.push(draw('rect', { class: 'pointed', x: edge(pointedAt) - 0.5, y: 19.5,
            width: edge(pointedAt + 1) - edge(pointedAt), height: top - 47 }));
    }

    const hatch = draw('pattern', { id: 'hatch', width: 4, height: 4, patternUnits: 'userSpaceOnUse',
        patternTransform: 'rotate(45)' }, draw('path', { class: 'hatch', d: 'M0 0V4' }));
    find('charts').querySelector('svg')?.remove();
    find('charts').prepend(draw('svg', { 'height': top - 6, 'role': 'img',
        'aria-label': `In the last 15 minutes ${plural(lately(requests, REASONS), 'request')} refused, `
            + `${number(lately(requests, PASSES))} let in` }, hatch, ...parts));
    showPointedAt(edge, width);
}

// A line for each status that occurred; `count` reduces a series to a number.
function linesOf(count) {
    const { requests, dry_run: dry } = data.history;
    return [
        ...REASONS.map(name => ({ text: name, swatch: name, count: count(requests[name]) })),
        { text: 'let in by fail-open', swatch: 'dry fail_open', count: count(requests.fail_open) },
        ...REASONS.map(name => ({ text: `${name}, dry run`, swatch: `dry ${name}`, count: count(dry[name]) })),
    ].filter(({ count }) => count > 0);
}

// Shows the counts of the ten seconds pointed at, or of the last ones for screen readers.
function showPointedAt(edge, width) {
    const { requests } = data.history;
    const at = pointedAt ?? BUCKETS - 1;
    const lines = [{ text: `${clock(timeOf(at))} – ${at === BUCKETS - 1 ? 'now' : clock(timeOf(at + 1))}` },
        ...linesOf(series => series[at])];
    if (lines.length === 1) lines.push({ text: 'nothing refused' });
    lines.push({ text: 'let in', swatch: 'ok', count: total(PASSES.map(name => requests[name][at])) });

    mark(find('cursor'), { 'aria-valuenow': at, 'aria-valuetext':
        lines.map(({ text, count }) => count === undefined ? text : `${text} ${number(count)}`).join(', ') });
    const tip = find('tip');
    tip.hidden = pointedAt === null;
    if (tip.hidden) return;
    tip.replaceChildren(make('ul', {}, ...lines.map(({ text, swatch, count }) => count === undefined
        ? make('li', {}, text)
        : make('li', {}, make('span', { class: `swatch ${swatch}` }), text, make('b', {}, number(count))))));
    const right = edge(at + 1) + 8;
    const left = right + tip.offsetWidth > width ? edge(at) - 8 - tip.offsetWidth : right;
    tip.style.setProperty('--left', `${Math.max(0, left)}px`);
}

function pointAt(bucket) {
    pointedAt = bucket === null ? null : Math.min(BUCKETS - 1, Math.max(0, bucket));
    showCharts();
}

function watchCursor() {
    const cursor = find('cursor');
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -6, PageUp: 6,
        Home: -BUCKETS, End: BUCKETS };
    cursor.addEventListener('pointermove', event => {
        const { left, width } = cursor.getBoundingClientRect();
        pointAt(Math.floor((event.clientX - left - MARGIN) / (width - MARGIN) * BUCKETS));
    });
    cursor.addEventListener('focus', () => pointAt(pointedAt ?? BUCKETS - 1));
    for (const name of ['pointerleave', 'blur']) cursor.addEventListener(name, () => pointAt(null));
    cursor.addEventListener('keydown', event => {
        if (event.key === 'Escape') pointAt(null);
        if (!(event.key in steps)) return;
        event.preventDefault();
        pointAt((pointedAt ?? BUCKETS - 1) + steps[event.key]);
    });
}

function showLegend() {
    const all = total(REASONS.map(name => lately(data.history.requests, [name])));
    const entries = linesOf(total).map(({ text, swatch, count }) =>
        ({ swatch, text: `${text} ${number(count)}${swatch in REFUSED ? ` (${share(count, all)})` : ''}` }));
    if (all === 0) entries.unshift({ swatch: '', text: 'Nothing was refused in the last 15 minutes.' });
    show(find('legend'), entries, () => {
        const [swatch, words] = [make('span'), make('span')];
        return [make('li', {}, swatch, words), entry => {
            mark(swatch, { class: `swatch ${entry.swatch}` });
            swatch.hidden = entry.swatch === '';
            set(words, entry.text);
        }];
    });
}

// The tables

function makeGroupRow({ title }) {
    const row = make('tr', { class: 'group' }, make('th', { scope: 'rowgroup' }, title), make('td'));
    return [row, ({ counts }) => showNumbers(row, counts)];
}

function makeStatusRow({ name, meaning }) {
    const trend = draw('path', { class: `bar ${name}` });
    const row = make('tr', {},
        make('th', { scope: 'row' }, make('span', { class: 'status' }, make('span', { class: `swatch ${name}` }),
            make('code', {}, name), make('span', { class: 'means' }, meaning))),
        make('td', {}, draw('svg', { 'class': 'spark', 'aria-hidden': true }, trend)));
    return [row, ({ counts, history }) => {
        const most = Math.max(...history);
        const y = value => Number((16 - 16 * value / most).toFixed(1));
        mark(trend, { d: stack(history, history.map(() => 0), bucket => bucket, y, 0) });
        showNumbers(row, counts);
    }];
}

function showStatuses() {
    const { history: { requests: history }, requests, dry_run: dry, closed } = data;
    const table = find('statuses');
    const withDry = pick(dry, REASONS) > 0;
    const withClosed = pick(closed, REASONS) > 0;
    const countsOf = names => [lastMinute(history, names), lately(history, names), pick(requests, names),
        ...(withDry ? [pick(dry, names)] : []), ...(withClosed ? [pick(closed, names)] : [])];

    set(table.caption.firstChild,
        `Requests in the last minute, the last 15 minutes, and since ${calendar(data.zone.since)}.`
        + (data.fail_open > 0 ? ' Refused is without what fail-open let in.' : '')
        + (withClosed ? ' Closed: let in, and closed while running (auth_pat_recheck).' : ''));
    showHeads(table, ['Status', 'Trend', '1 min', '15 min', 'Total',
        ...(withDry ? ['Dry run'] : []), ...(withClosed ? ['Closed'] : [])]);
    const groups = [['Refused', REFUSED, REASONS], ['Let in', LET_IN, PASSES]].map(([title, meanings, names]) => [
        { title, counts: countsOf(names) },
        ...Object.entries(meanings).map(([name, meaning]) =>
            ({ name, meaning, counts: countsOf([name]), history: history[name] })),
    ]);
    show(table, groups, () => {
        const body = make('tbody');
        return [body, rows => show(body, rows, row => 'title' in row ? makeGroupRow(row) : makeStatusRow(row))];
    });
}

function showServers() {
    const { servers, zone } = data;
    const table = find('servers');
    const columns = [
        ['Let in', server => pick(server.requests, PASSES)],
        ['Refused', server => pick(server.requests, REASONS)],
        ...[...REASONS.map(name => [name, server => server.requests[name]]),
            ['Fail-open', server => server.fail_open],
            ['Dry run', server => pick(server.dry_run, REASONS)],
            ['Closed', server => pick(server.closed, REASONS)],
        ].filter(([, count]) => servers.some(server => count(server) > 0)),
    ];
    set(table.caption.firstChild, servers.length === 0 ? 'No server has auth_pat.' : `Since ${calendar(zone.since)}.`);
    table.tHead.hidden = servers.length === 0;
    showHeads(table, ['Server', 'Share refused', ...columns.map(([name]) => name)]);
    const rows = servers.map(server => ({ name: server.name, counts: columns.map(([, count]) => count(server)) }));
    show(table.tBodies[0], rows, () => {
        const [head, part] = [make('th', { scope: 'row', class: 'server' }), make('td')];
        const row = make('tr', {}, head, part);
        return [row, ({ name, counts }) => {
            const [passed, refused] = counts;
            set(head, name || '(without a name)');
            set(part, share(refused, refused + passed));
            showNumbers(row, counts);
        }];
    });
}

function showTokens() {
    const { known, capacity, evicted, lost_uses: lost, top } = data.tokens;
    const table = find('tokens');
    set(table.caption.firstChild, top.length === 0 ? `No token was used since ${calendar(data.zone.since)}.`
        : `${plural(known, 'token')} remembered, of at most ${number(capacity)}`
            + (evicted > 0 ? `; ${number(evicted)} forgotten to make room` : '')
            + (lost > 0 ? `; ${plural(lost, 'use')} lost before auth_pat_usage was asked` : ''));
    table.tHead.hidden = top.length === 0;
    showHeads(table, ['Token', 'Uses', 'Last used', 'From']);
    show(table.tBodies[0], top, () => {
        const [id, uses, last, from] =
            [make('th', { scope: 'row', class: 'id' }), make('td'), make('td'), make('td', { class: 'from' })];
        return [make('tr', {}, id, uses, last, from), token => {
            set(id, token.id);
            set(uses, number(token.uses));
            showAge(last, token.last_at);
            set(from, token.last_from || 'a UNIX socket');
        }];
    });
}

function showStores() {
    find('no-stores').hidden = data.stores.length > 0;
    show(find('stores'), data.stores, () => {
        const [path, badge] = [make('span', { class: 'id' }), make('span', { class: 'sign' })];
        const [words, facts] = [make('p'), make('dl')];
        const [age, transaction, tokens, readers, revoked, map] =
            ['Heartbeat', 'Transaction', 'Tokens', 'Readers', 'Revoked', 'Map'].map(name => {
                const value = make('dd');
                facts.append(make('div', {}, make('dt', {}, name), value));
                return value;
            });
        const meter = make('div', { 'role': 'meter', 'aria-label': 'Map in use, in percent' });
        const element = make('article', { class: 'store' }, make('h3', {}, path, badge), words, facts, meter);
        return [element, store => {
            const problems = problemsOf(store);
            const level = worst(problems);
            mark(element, { 'data-level': level });
            set(path, store.path);
            set(badge, store.open ? store.state : 'can’t be read');
            set(words, textOf(problems));
            words.hidden = problems.length === 0;
            facts.hidden = meter.hidden = !store.open;
            showAge(age, store.open && store.age !== null ? data.time - store.age : null);
            if (!store.open) return;
            if (store.age === null) set(age, 'none');
            set(transaction, number(store.transaction));
            set(tokens, number(store.tokens));
            set(revoked, number(store.revoked));
            set(readers, `${number(store.readers)} of ${number(store.max_readers)}`);
            set(map, `${bytes(store.used_bytes)} of ${bytes(store.map_bytes)}`);
            const percent = 100 * store.used_bytes / store.map_bytes;
            mark(meter, { 'aria-valuenow': percent, 'aria-valuetext': share(store.used_bytes, store.map_bytes) });
            meter.style.setProperty('--part', `${percent}%`);
        }];
    });
}

function showAll(answer) {
    data = answer;
    // nginx sends whole seconds: the answer that arrives soonest after a full second is the most precise.
    const seen = data.time - Date.now() / 1000;
    if (seen > clockAhead || seen < clockAhead - 2) clockAhead = seen;
    const counted = data.zone !== null;
    if (counted) for (const one of [data, data.history, ...data.servers]) one.requests.fail_open = one.fail_open;
    set(find('about'), `${location.host} · auth_pat ${data.version} · nginx ${data.nginx}`
        + (counted ? ` · zone ${data.zone.name}, ${bytes(data.zone.size)}` : ''));
    find('uncounted').hidden = counted;
    for (const id of ['recent', 'by-status', 'by-token', 'by-server']) find(id).hidden = !counted;
    document.querySelector('main').hidden = false;

    showHeadline();
    showStores();
    if (counted) {
        showCharts();
        showLegend();
        showStatuses();
        showTokens();
        showServers();
    }
    showSilence(null);
    tick();
}

// Asking nginx again

// Why there is no answer; null: there is one.
let silence = null;

function showSilence(why) {
    set(find('live'), `${why === null ? 'live' : 'not live'}, as of ${clockWithZone(data.time)}`);
    if (why === silence) return;
    silence = why;
    document.body.classList.toggle('old', why !== null);
    find('silence').hidden = why === null;
    if (why === null) return;
    document.title = `✕ no answer – ${location.host}`;
    // Hidden from screen readers, as it changes every second.
    find('silence').replaceChildren(`${why}. The figures below are from ${clockWithZone(data.time)}, `,
        make('span', { 'data-at': data.time, 'aria-hidden': true }), '. nginx is asked again every few seconds.');
    tick();
}

const own = document.currentScript.textContent;

async function fetchStatus() {
    // location.href may contain a user and a password, which fetch() rejects.
    const answer = await fetch(location.origin + location.pathname + location.search,
        { headers: { Accept: 'text/html' }, cache: 'no-store', signal: AbortSignal.timeout(1000 * TIMEOUT) })
        .catch(() => Promise.reject(new Error('nginx does not answer')));
    if (!answer.ok) throw new Error(`nginx answers ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const [element, script] = page.querySelectorAll('script');
    if (element?.id !== 'data') throw new Error('nginx answers something else');
    // nginx now runs another version of the module.
    if (script?.textContent !== own) location.reload();
    return JSON.parse(element.textContent);
}

let timer;
let asking = false;

async function ask() {
    if (asking) return;
    asking = true;
    clearTimeout(timer);
    try {
        showAll(await fetchStatus());
    } catch (error) {
        showSilence(error.message);
    }
    asking = false;
    timer = setTimeout(ask, 1000 * (document.hidden ? INTERVAL_HIDDEN : INTERVAL));
}

showAll(JSON.parse(find('data').textContent));
watchCursor();
new ResizeObserver(showCharts).observe(find('charts'));
document.addEventListener('visibilitychange', () => document.hidden || ask());
setInterval(tick, 500);
timer = setTimeout(ask, 1000 * INTERVAL);
