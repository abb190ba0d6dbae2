#include "nginx/pat_stores.h"

#include "nginx/pat_conf.h"
#include "store/pat_reader.h"

#include <algorithm>
#include <new>

#include <grp.h>
#include <pwd.h>

namespace pat::ngx {

namespace {

constexpr ngx_msec_t maintenance_interval = 1000;

/// For nginx's start, when other processes may be opening the same store.
constexpr unsigned open_wait_ms = 1000;

/// A check need not wait for all of them.
constexpr unsigned look_wait_ms = 300;

/// A process in more groups gets no advice about groups.
constexpr int max_groups = 256;

struct store_slot {
    store_slot *next;
    ngx_uint_t references;
    store::reader reader;
    store::fault logged;  ///< the problem that was last logged
    ngx_uint_t pause;     ///< seconds between tries, if opening the store stalls
    ngx_uint_t pausing;   ///< seconds until the next try
    ngx_str_t path;       ///< stored behind the slot
    std::size_t map_size;
};

bool serving;
store_slot *slots;
ngx_event_t maintenance;

/// Identifies the data file of the store at a path; false if there is none.
[[nodiscard]] bool identify(const ngx_str_t &path, store::file_identity &out) noexcept
{
    store::file_path data;
    struct stat info;

    if (!data.set(reinterpret_cast<const char *>(path.data), store::data_file) || lstat(data.text(), &info) != 0) {
        return false;
    }
    out = {info.st_dev, info.st_ino};
    return true;
}

[[nodiscard]] store_slot *find(const ngx_str_t &path) noexcept
{
    for (store_slot *slot = slots; slot != nullptr; slot = slot->next) {
        if (view(slot->path) == view(path)) {
            return slot;
        }
    }
    return nullptr;
}

/// Whether others than root and its owner can change which store a path leads to.
[[nodiscard]] bool is_led_by_others(const ngx_str_t &path) noexcept
{
    const auto *folder = reinterpret_cast<const char *>(path.data);
    struct stat info;
    return stat(folder, &info) != 0 || store::check_way(folder, info.st_uid);
}

/// Frees the store of `slot` from a slot with another path, through which another user has claimed it.
[[nodiscard]] bool take_back(const store_slot &slot) noexcept
{
    store::file_identity data;
    if (!identify(slot.path, data) || is_led_by_others(slot.path)) {
        return false;
    }

    for (store_slot *other = slots; other != nullptr; other = other->next) {
        if (other->reader.is_open() && other->reader.data() == data && is_led_by_others(other->path)) {
            other->reader.refuse({store::fault_kind::same_store_twice});
            return true;
        }
    }
    return false;
}

/// Whether this process is in a group.
[[nodiscard]] bool has_group(gid_t wanted) noexcept
{
    gid_t groups[max_groups];
    const int count = getgroups(max_groups, groups);
    return getegid() == wanted || std::find(groups, groups + std::max(count, 0), wanted) != groups + std::max(count, 0);
}

/// Whether this process would be in a group if it were started now.
[[nodiscard]] bool user_has_group(gid_t wanted) noexcept
{
    const passwd *user = getpwuid(geteuid());
    gid_t groups[max_groups];
    int count = max_groups;
    if (user == nullptr || getgrouplist(user->pw_name, user->pw_gid, groups, &count) < 0) {
        return false;
    }
    return std::find(groups, groups + count, wanted) != groups + count;
}

/// Logs a change in the problem of a store.
void report(store_slot &slot, const store::fault &problem, ngx_log_t *log) noexcept
{
    if (problem == slot.logged) {
        return;
    }
    slot.logged = problem;

    const auto *path = reinterpret_cast<const char *>(slot.path.data);
    if (problem) {
        log_fault(NGX_LOG_CRIT, log, path, problem);
    } else {
        ngx_log_error(NGX_LOG_NOTICE, log, 0, "auth_pat store \"%s\" is open again", path);
    }
}

/// Maintains one store: opens it, or checks what is open.
void tend(store_slot &slot, unsigned wait_ms, ngx_log_t *log) noexcept
{
    constexpr ngx_uint_t longest_pause = 16;

    if (slot.reader.is_open()) {
        slot.reader.maintain();
    } else if (slot.pausing > 0) {
        slot.pausing--;
    } else {
        const auto open = [&] {
            return slot.reader.open(reinterpret_cast<const char *>(slot.path.data), slot.map_size, wait_ms);
        };
        store::fault problem = open();
        if (problem.kind == store::fault_kind::same_store_twice && take_back(slot)) {
            problem = open();
        }

        // Opening blocked the worker, which may have other stores and sites, so retry less often.
        slot.pause = problem.kind == store::fault_kind::stalled ? ngx_min(2 * slot.pause + 1, longest_pause) : 0;
        slot.pausing = slot.pause;
    }

    report(slot, slot.reader.is_open() ? store::fault{} : slot.reader.problem(), log);
}

void maintain(ngx_event_t *event) noexcept
{
    for (store_slot *slot = slots; slot != nullptr; slot = slot->next) {
        tend(*slot, store::reopen_wait_ms, event->log);
    }

    ngx_add_timer(event, maintenance_interval);
}

[[nodiscard]] store_slot *make_slot(const store_conf &store, unsigned wait_ms, ngx_log_t *log) noexcept
{
    void *memory = ngx_alloc(sizeof(store_slot) + store.path.len + 1, log);
    if (memory == nullptr) {
        return nullptr;
    }

    auto *slot = new (memory) store_slot{};
    slot->path = {store.path.len, static_cast<u_char *>(memory) + sizeof(store_slot)};
    ngx_memcpy(slot->path.data, store.path.data, store.path.len + 1);
    slot->map_size = store.map_size;

    slot->next = slots;
    slots = slot;

    tend(*slot, wait_ms, log);
    return slot;
}

void detach(void *data) noexcept
{
    auto *slot = static_cast<store_slot *>(data);

    if (--slot->references > 0) {
        return;
    }

    store_slot **link = &slots;
    while (*link != slot) {
        link = &(*link)->next;
    }
    *link = slot->next;

    slot->~store_slot();
    ngx_free(slot);

    if (slots == nullptr && maintenance.timer_set) {
        ngx_del_timer(&maintenance);
    }
}

}  // namespace

void begin_serving() noexcept
{
    serving = true;
}

bool is_serving() noexcept
{
    return serving;
}

bool attach_stores(ngx_cycle_t *cycle, const main_conf &mcf) noexcept
{
    // All stores share one wait: a starting worker may have other sites to serve.
    ngx_time_update();
    const ngx_msec_t begun_at = ngx_current_msec;

    for (store_conf *store : items<store_conf *>(mcf.stores)) {
        if (store->reader != nullptr) {
            continue;
        }
        ngx_time_update();
        const ngx_msec_t waited = ngx_min(ngx_current_msec - begun_at, open_wait_ms);
        const unsigned wait_ms = ngx_max(open_wait_ms - static_cast<unsigned>(waited), store::reopen_wait_ms);

        ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cycle->pool, 0);
        if (cleanup == nullptr) {
            return false;
        }

        store_slot *slot = find(store->path);
        if (slot == nullptr && (slot = make_slot(*store, wait_ms, cycle->log)) == nullptr) {
            return false;
        }

        slot->references++;
        cleanup->handler = detach;
        cleanup->data = slot;

        store->reader = &slot->reader;
    }

    if (slots == nullptr) {
        return true;
    }

    prepare_timer(maintenance, maintain, cycle->log);
    if (!maintenance.timer_set) {
        ngx_add_timer(&maintenance, maintenance_interval);
    }
    return true;
}

void look_at(const store_conf &store, const token_hasher &make_digest, trial_result &out) noexcept
{
    const auto *path = reinterpret_cast<const char *>(store.path.data);

    out.has_data = identify(store.path, out.data);
    out.is_led_by_others = is_led_by_others(store.path);

    store::reader trial;
    out.problem = trial.open(path, store.map_size, look_wait_ms);
    if (!out.problem) {
        out.problem = trial.check_made_with(make_digest);
    }
    if (out.problem.kind == store::fault_kind::denied || out.problem.kind == store::fault_kind::no_lock_file) {
        out.refused = store::find_refusal(path);
        out.has_group = has_group(out.refused.group);
        out.has_stale_groups = !out.has_group && user_has_group(out.refused.group);

        store::file_path way;
        out.is_led_by_root = way.set_start(path, out.refused.way_length) && !store::check_way(way.text(), 0);
    }
}

bool find_open(const store_conf &store, const token_hasher &make_digest, trial_result &out) noexcept
{
    store_slot *slot = find(store.path);
    if (slot == nullptr) {
        return false;
    }
    out.problem = slot->reader.check_made_with(make_digest);
    out.has_data = identify(store.path, out.data);
    out.is_led_by_others = is_led_by_others(store.path);
    return true;
}

void log_fault(ngx_uint_t level, ngx_log_t *log, const char *path, const store::fault &problem) noexcept
{
    const bool has_command = problem.kind == store::fault_kind::shared;
    const store::shell_command command = has_command ? store::repair_command(path) : store::shell_command{};

    ngx_log_error(level, log, 0, "auth_pat store \"%s\": %s%s%s", path, store::fault_text{problem}.text(),
                  has_command ? ": " : "", command.text());
}

}  // namespace pat::ngx
