#include "nginx/pat_zone.h"

#include "core/pat_bytes.h"
#include "nginx/pat_conf.h"

#include <algorithm>
#include <new>
#include <span>

namespace pat::ngx {

struct zone_name {
    zone_name *next;
    std::uint32_t number;         ///< no other name ever had it
    std::uint64_t configuration;  ///< the newest with this name
    counters counts;              ///< of a server
    std::size_t length;
    std::array<u_char, max_zone_name_length> name;  ///< of a server, or the path of a store
};

namespace {

constexpr ngx_msec_t merge_interval = 1000;
constexpr ngx_msec_t retry_interval = 10;  ///< if another process had the lock

}  // namespace

struct zone_contents {
    time_t since;
    zone_name *servers;
    zone_name *stores;
    std::uint32_t names;           ///< added so far
    std::uint64_t configurations;  ///< so far
    counters total;                ///< of the servers of all configurations
    history last;
    std::span<std::byte> usage_memory;
    usage_table *usage;
    bool is_changing;  ///< the lock is held, or was when its holder died
};

struct zone_worker {
    zone_conf *zone;  ///< nullptr once its memory may be gone
    counters *servers;
    bool has_counts;
    std::uint64_t lost_uses;
    use_batch uses;
    ngx_event_t timer;
    ngx_event_t soon;
};

namespace {

/// The counters of this process. Only the cycle that serves counts, older ones no longer do.
zone_worker *attached;

[[nodiscard]] ngx_slab_pool_t &slab_of(const zone_conf &zone) noexcept
{
    return *reinterpret_cast<ngx_slab_pool_t *>(zone.memory->shm.addr);
}

[[nodiscard]] usage_table *make_usage_table(const zone_contents &contents) noexcept
{
    return usage_table::make(contents.usage_memory, usage_table::cursor_at(ngx_time()));
}

/// Holds the zone's lock, in order to change the contents. nginx's master releases the lock of a worker that died with
/// it; the usage table, which that worker may have left half changed, is then made anew.
class zone_lock {
public:
    explicit zone_lock(const zone_conf &zone) noexcept : zone_lock{zone, (ngx_shmtx_lock(&slab_of(zone).mutex), true)}
    {
    }

    /// Does not wait, and may fail to get the lock.
    static zone_lock try_to_get(const zone_conf &zone) noexcept
    {
        return zone_lock{zone, ngx_shmtx_trylock(&slab_of(zone).mutex) != 0};
    }

    zone_lock(const zone_lock &) = delete;
    zone_lock &operator=(const zone_lock &) = delete;

    ~zone_lock()
    {
        if (is_held_) {
            ngx_memory_barrier();
            contents_->is_changing = false;
            ngx_shmtx_unlock(mutex_);
        }
    }

    [[nodiscard]] bool is_held() const noexcept { return is_held_; }

private:
    zone_lock(const zone_conf &zone, bool is_held) noexcept
        : mutex_{&slab_of(zone).mutex},
          contents_{zone.contents},
          is_held_{is_held}
    {
        if (!is_held_) {
            return;
        }
        if (contents_->is_changing) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                          "a worker died while changing auth_pat_zone \"%V\": the last use of tokens is reset",
                          &zone.memory->shm.name);
            contents_->usage = make_usage_table(*contents_);
        }
        contents_->is_changing = true;
        ngx_memory_barrier();
    }

    ngx_shmtx_t *mutex_;
    zone_contents *contents_;
    bool is_held_;
};

/// Whether the zone still has counters for a server, rather than for another name in their place.
[[nodiscard]] bool is_current(const server_entry &server) noexcept
{
    return server.totals != nullptr && server.totals->number == server.number;
}

void add(verdict_counts &sum, const verdict_counts &part) noexcept
{
    for (std::size_t i = 0; i < sum.size(); i++) {
        sum[i] += part[i];
    }
}

void add(counters &sum, const counters &part) noexcept
{
    add(sum.requests, part.requests);
    add(sum.dry_run, part.dry_run);
    add(sum.closed, part.closed);
    sum.fail_open += part.fail_open;
}

void add(std::array<std::uint32_t, verdict_count> &sum, const verdict_counts &part) noexcept
{
    for (std::size_t i = 0; i < sum.size(); i++) {
        sum[i] += static_cast<std::uint32_t>(part[i]);
    }
}

void add(history &sum, const counters &part) noexcept
{
    const std::int64_t number = ngx_time() / history::slice_seconds;

    history::slice &slice = sum.slices[static_cast<std::size_t>(number) % history::slice_count];
    if (slice.number != number) {
        slice = {};
        slice.number = number;
    }
    add(slice.requests, part.requests);
    add(slice.dry_run, part.dry_run);
    slice.fail_open += static_cast<std::uint32_t>(part.fail_open);
}

/// Merges what a worker has counted into the shared memory, whose lock is held, and starts again from zero.
void merge(zone_worker &worker) noexcept
{
    zone_contents &contents = *worker.zone->contents;

    if (worker.has_counts) {
        counters total{};
        counters *counted = worker.servers;
        for (const server_entry &server : items<server_entry>(worker.zone->servers)) {
            if (is_current(server)) {
                add(server.totals->counts, *counted);
            }
            add(total, *counted);
            *counted++ = {};
        }
        add(contents.total, total);
        add(contents.last, total);
        worker.has_counts = false;
    }

    worker.uses.drain([&](const token_use &uses) {
        if (is_id(uses.id)) {  // as in any record that patctl wrote
            contents.usage->add(uses);
        }
    });
    contents.usage->count_lost(worker.lost_uses);
    worker.lost_uses = 0;
}

[[nodiscard]] bool has_something(const zone_worker &worker) noexcept
{
    return worker.has_counts || !worker.uses.is_empty() || worker.lost_uses != 0;
}

/// Merges if the lock is free: a worker does not wait for it.
[[nodiscard]] bool try_merge(zone_worker &worker) noexcept
{
    if (!has_something(worker)) {
        return true;
    }

    const zone_lock lock = zone_lock::try_to_get(*worker.zone);
    if (lock.is_held()) {
        merge(worker);
    }
    return lock.is_held();
}

void merge_now(zone_worker &worker) noexcept
{
    if (has_something(worker)) {
        const zone_lock lock{*worker.zone};
        merge(worker);
    }
}

void merge_by_timer(ngx_event_t *timer) noexcept
{
    auto *worker = ngx_queue_data(timer, zone_worker, timer);

    ngx_add_timer(timer, try_merge(*worker) ? merge_interval : retry_interval);
}

/// Merges early: many tokens have been used, and there may be no room for more before the timer fires.
void merge_soon(ngx_event_t *event) noexcept
{
    auto *worker = ngx_queue_data(event, zone_worker, soon);

    if (worker->zone != nullptr && !try_merge(*worker)) {
        ngx_add_timer(&worker->timer, retry_interval);
    }
}

/// Ends the counting of a cycle, whose memory must still be there.
void end_counting() noexcept
{
    if (attached == nullptr) {
        return;
    }

    merge_now(*attached);
    if (attached->timer.timer_set) {
        ngx_del_timer(&attached->timer);
    }
    if (attached->soon.posted) {
        ngx_delete_posted_event(&attached->soon);
    }
    attached->zone = nullptr;
    attached = nullptr;
}

/// Ends the counting when the pool of its cycle is destroyed, unless a newer cycle has taken over.
void detach(void *data) noexcept
{
    if (data == attached) {
        end_counting();
    }
}

/// Finds a name whose place may be reused: the oldest that neither this configuration nor the previous one has.
[[nodiscard]] zone_name *find_forgotten(zone_name *first, std::uint64_t configuration) noexcept
{
    zone_name *oldest = nullptr;
    for (zone_name *name = first; name != nullptr; name = name->next) {
        if (name->configuration + 1 < configuration
            && (oldest == nullptr || name->configuration < oldest->configuration)) {
            oldest = name;
        }
    }
    return oldest;
}

[[nodiscard]] zone_name *find(zone_name *first, std::string_view name) noexcept
{
    while (first != nullptr && view({first->length, first->name.data()}) != name) {
        first = first->next;
    }
    return first;
}

/// Adds a name to a list of the zone; nullptr if there is no room.
[[nodiscard]] zone_name *add(zone_conf &zone, zone_name *&first, std::string_view name) noexcept
{
    zone_contents &contents = *zone.contents;

    auto *entry = static_cast<zone_name *>(ngx_slab_calloc(&slab_of(zone), sizeof(zone_name)));
    const bool is_new = entry != nullptr;
    if (!is_new && (entry = find_forgotten(first, contents.configurations)) == nullptr) {
        return nullptr;
    }

    const zone_lock lock{zone};
    entry->number = ++contents.names;  // an old worker may still count for the previous name
    entry->configuration = contents.configurations;
    entry->counts = {};
    entry->length = name.size();
    std::copy(name.begin(), name.end(), entry->name.begin());
    if (is_new) {
        entry->next = first;
        first = entry;
    }
    return entry;
}

/// Finds names in a list of the zone, or adds them, and passes each entry to `take` with the index of its name. Returns
/// how many did not fit. Only the master process changes the lists.
template <typename Name, typename Take>
[[nodiscard]] ngx_uint_t find_or_add(zone_conf &zone, zone_name *&first, ngx_uint_t count, const Name &name_of,
                                     const Take &take) noexcept
{
    ngx_uint_t missing = 0;

    for (const bool adds : {false, true}) {  // existing names first, so that none of them is replaced by a new one
        for (ngx_uint_t i = 0; i < count; i++) {
            const ngx_str_t &text = name_of(i);
            const std::string_view name = head(view(text), std::min(text.len, max_zone_name_length));

            zone_name *entry = find(first, name);
            if (entry != nullptr) {
                entry->configuration = zone.contents->configurations;
            } else if (adds && (entry = add(zone, first, name)) == nullptr) {
                missing++;
            }
            if (entry != nullptr) {
                take(i, *entry);
            }
        }
    }
    return missing;
}

/// Finds the servers and stores of this configuration in the zone, and adds those that are new. Returns how many did
/// not fit.
[[nodiscard]] ngx_uint_t find_or_add_all(zone_conf &zone) noexcept
{
    const auto servers = items<server_entry>(zone.servers);
    const auto stores = items<store_conf *>(zone.main->stores);

    zone.contents->configurations++;

    return find_or_add(
               zone, zone.contents->servers, zone.servers.nelts,
               [&](ngx_uint_t i) -> ngx_str_t & { return servers[i].name; },
               [&](ngx_uint_t i, zone_name &entry) {
                   servers[i].totals = &entry;
                   servers[i].number = entry.number;
               })
           + find_or_add(
               zone, zone.contents->stores, zone.main->stores.nelts,
               [&](ngx_uint_t i) -> ngx_str_t & { return stores[i]->path; },
               [&](ngx_uint_t i, zone_name &entry) { stores[i]->number = entry.number; });
}

/// Gives the usage table the free memory, except for some pages for servers and stores of later configurations.
[[nodiscard]] bool add_usage_table(zone_conf &zone) noexcept
{
    ngx_slab_pool_t &slab = slab_of(zone);

    const ngx_uint_t spare = 1 + slab.pfree / 16;
    if (slab.pfree <= spare) {
        return false;
    }
    const std::size_t size = (slab.pfree - spare) * ngx_pagesize;
    auto *memory = static_cast<std::byte *>(ngx_slab_alloc(&slab, size));
    if (memory == nullptr) {
        return false;
    }

    zone.contents->usage_memory = {memory, size};
    zone.contents->usage = make_usage_table(*zone.contents);
    return zone.contents->usage != nullptr;
}

[[nodiscard]] bool make_contents(zone_conf &zone) noexcept
{
    ngx_slab_pool_t &slab = slab_of(zone);

    zone.contents = static_cast<zone_contents *>(ngx_slab_calloc(&slab, sizeof(zone_contents)));
    if (zone.contents == nullptr) {
        return false;
    }
    zone.contents->since = ngx_time();
    slab.data = zone.contents;

    return find_or_add_all(zone) == 0 && add_usage_table(zone);
}

ngx_int_t init_zone(ngx_shm_zone_t *memory, void *data) noexcept
{
    auto &zone = *static_cast<zone_conf *>(memory->data);
    const auto *old = static_cast<const zone_conf *>(data);

    slab_of(zone).log_nomem = 0;

    if (old == nullptr && memory->shm.exists == 0) {
        if (make_contents(zone)) {
            return NGX_OK;
        }
        ngx_log_error(NGX_LOG_EMERG, memory->shm.log, 0,
                      "auth_pat_zone \"%V\" is too small for %ui servers and %ui stores", &memory->shm.name,
                      zone.servers.nelts, zone.main->stores.nelts);
        return NGX_ERROR;
    }

    zone.contents = old != nullptr ? old->contents : static_cast<zone_contents *>(slab_of(zone).data);
    if (const ngx_uint_t missing = find_or_add_all(zone)) {
        ngx_log_error(
            NGX_LOG_WARN, memory->shm.log, 0,
            "auth_pat_zone \"%V\" has no room for %ui more servers or stores, which are not counted separately; "
            "changing its size resets it",
            &memory->shm.name, missing);
    }
    return NGX_OK;
}

/// The state of this worker for the request's configuration; nullptr without a zone.
[[nodiscard]] zone_worker *worker_of(const ngx_http_request_t *r) noexcept
{
    const main_conf &mcf = main_conf_of(r);
    return mcf.zone == nullptr ? nullptr : mcf.zone->worker;
}

/// Whether the worker counts in the zone. Not so for a request of an older configuration after a reload with
/// `master_process off`: its zone may be gone.
[[nodiscard]] bool is_attached(const zone_conf &zone) noexcept
{
    return zone.worker != nullptr && zone.worker->zone != nullptr;
}

/// Copies the ids, which point into the table.
[[nodiscard]] bool copy_ids(std::span<token_use> uses, ngx_pool_t *pool) noexcept
{
    for (token_use &use : uses) {
        auto *copy = allocate<char>(pool, use.id.size());
        if (copy == nullptr) {
            return false;
        }
        std::copy(use.id.begin(), use.id.end(), copy);
        use.id = {copy, use.id.size()};
    }
    return true;
}

}  // namespace

zone_conf *add_zone(ngx_conf_t *cf, main_conf &mcf, ngx_str_t &name, std::size_t size) noexcept
{
    constexpr ngx_uint_t a_few = 4;

    auto *zone = allocate<zone_conf>(cf->pool);
    if (zone == nullptr) {
        return nullptr;
    }
    *zone = {};
    zone->main = &mcf;

    zone->memory = ngx_shared_memory_add(cf, &name, size, &ngx_http_auth_pat_module);
    if (zone->memory == nullptr || ngx_array_init(&zone->servers, cf->pool, a_few, sizeof(server_entry)) != NGX_OK) {
        return nullptr;
    }
    zone->memory->init = init_zone;
    zone->memory->data = zone;
    return zone;
}

ngx_int_t number_servers(ngx_conf_t *cf, zone_conf &zone) noexcept
{
    const auto *cmcf =
        static_cast<ngx_http_core_main_conf_t *>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));

    for (const ngx_http_core_srv_conf_t *cscf : items<ngx_http_core_srv_conf_t *>(cmcf->servers)) {
        auto *scf = static_cast<srv_conf *>(cscf->ctx->srv_conf[ngx_http_auth_pat_module.ctx_index]);

        scf->number = 0;
        while (scf->number < zone.servers.nelts
               && view(items<server_entry>(zone.servers)[scf->number].name) != view(cscf->server_name)) {
            scf->number++;
        }
        if (scf->number < zone.servers.nelts) {
            continue;
        }

        auto *added = push<server_entry>(zone.servers);
        if (added == nullptr) {
            return NGX_ERROR;
        }
        *added = {cscf->server_name, nullptr, 0};
    }
    return NGX_OK;
}

bool attach_zone(ngx_cycle_t *cycle, zone_conf &zone) noexcept
{
    if (is_attached(zone)) {
        return true;
    }
    end_counting();

    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cycle->pool, 0);
    auto *memory = allocate<zone_worker>(cycle->pool);
    auto *servers = static_cast<counters *>(ngx_pcalloc(cycle->pool, zone.servers.nelts * sizeof(counters)));
    if (cleanup == nullptr || memory == nullptr || servers == nullptr) {
        return false;
    }

    auto *worker = new (memory) zone_worker{};
    worker->zone = &zone;
    worker->servers = servers;
    prepare_timer(worker->timer, merge_by_timer, cycle->log);
    prepare_timer(worker->soon, merge_soon, cycle->log);
    ngx_add_timer(&worker->timer, merge_interval);

    cleanup->handler = detach;
    cleanup->data = worker;

    zone.worker = worker;
    attached = worker;
    return true;
}

void detach_zone() noexcept
{
    end_counting();
}

counters *counters_of(const ngx_http_request_t *r) noexcept
{
    zone_worker *worker = worker_of(r);
    if (worker == nullptr) {
        return nullptr;
    }
    worker->has_counts = true;
    return &worker->servers[srv_conf_of(r).number];
}

void count_use(const ngx_http_request_t *r, const store_conf &store, std::string_view id, const address &peer) noexcept
{
    zone_worker &worker = *worker_of(r);
    if (store.number == 0) {
        return;
    }

    if (!worker.uses.add(store.number, id, ngx_time(), peer)) {
        worker.lost_uses++;
    }
    if (worker.uses.is_filling() && worker.zone != nullptr && !worker.soon.posted) {
        ngx_post_event(&worker.soon, &ngx_posted_events);
    }
}

bool read_zone(zone_conf &zone, ngx_pool_t *pool, zone_figures &out) noexcept
{
    constexpr std::size_t most_used_count = 10;

    const std::size_t count = zone.servers.nelts;
    auto *servers = allocate<server_figures>(pool, count);
    auto *last = allocate<history>(pool);
    auto *uses = allocate<token_use>(pool, most_used_count);
    if (servers == nullptr || last == nullptr || uses == nullptr || !is_attached(zone)) {
        return false;
    }
    merge_now(*zone.worker);

    const zone_lock lock{zone};
    const zone_contents &contents = *zone.contents;

    for (std::size_t i = 0; i < count; i++) {
        const server_entry &server = items<server_entry>(zone.servers)[i];
        servers[i] = {server.name, is_current(server) ? server.totals->counts : counters{}};
    }

    const usage_table &usage = *contents.usage;

    *last = contents.last;
    out.since = contents.since;
    out.total = contents.total;
    out.servers = {servers, count};
    out.last = last;
    out.usage = {usage.size(), usage.capacity(), usage.evicted(), usage.lost_uses(), usage.cursor()};
    out.most_used = {uses, usage.most_used({uses, most_used_count})};
    return copy_ids(out.most_used, pool);
}

bool report_usage(zone_conf &zone, const store_conf &store, std::uint64_t &cursor, ngx_pool_t *pool,
                  std::span<const token_use> &out) noexcept
{
    constexpr std::size_t most = usage_table::report_size;

    auto *memory = allocate<token_use>(pool, most);
    if (memory == nullptr || !is_attached(zone)) {
        return false;
    }
    merge_now(*zone.worker);

    const zone_lock lock{zone};
    const std::span uses{memory,
                         zone.contents->usage->report(store.number, cursor, std::span<token_use, most>{memory, most})};
    out = uses;
    return copy_ids(uses, pool);
}

}  // namespace pat::ngx
