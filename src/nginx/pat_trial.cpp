#include "nginx/pat_trial.h"

#include "nginx/pat_conf.h"
#include "nginx/pat_stores.h"
#include "store/pat_environment.h"
#include "store/pat_ownership.h"

#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <span>

#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace pat::ngx {

namespace {

char *init_conf(ngx_cycle_t *cycle, void *conf) noexcept;

ngx_core_module_t context = {
    ngx_string("auth_pat"),
    nullptr,  // create configuration
    init_conf,
};

}  // namespace

}  // namespace pat::ngx

ngx_module_t ngx_auth_pat_module = {
    NGX_MODULE_V1,
    &pat::ngx::context,
    nullptr,  // directives
    NGX_CORE_MODULE,
    nullptr,  // init master
    nullptr,  // init module
    nullptr,  // init process
    nullptr,  // init thread
    nullptr,  // exit thread
    nullptr,  // exit process
    nullptr,  // exit master
    NGX_MODULE_V1_PADDING,
};

namespace pat::ngx {

namespace {

/// For all stores together: the owner of a store cannot delay nginx's start any longer.
constexpr ngx_msec_t deadline_ms = 2500;

/// How long children may take to exit after they have reported or were killed. nginx itself reaps any that take longer.
constexpr ngx_msec_t end_ms = 200;

/// The user of the workers: differs from that of this process only if this is root and has workers.
struct workers_user {
    const ngx_core_conf_t *conf;  ///< null: they run as this process does
    const char *name;
};

[[nodiscard]] ngx_msec_t now_ms() noexcept
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return static_cast<ngx_msec_t>(time.tv_sec) * 1000 + static_cast<ngx_msec_t>(time.tv_nsec) / 1000000;
}

/// Changes the user as ngx_worker_process_init() does; returns 0 or errno.
[[nodiscard]] int become(const workers_user &user) noexcept
{
    const bool is_done = user.conf == nullptr
                         || (setgid(user.conf->group) == 0 && initgroups(user.conf->username, user.conf->group) == 0
                             && setuid(user.conf->user) == 0);
    return is_done ? 0 : errno;
}

/// A child process that checks one store. All run at the same time, so that none waits for one that hangs.
class trial {
public:
    void begin(const store_use &use, const workers_user &user) noexcept
    {
        if (find_open(*use.store, *use.make_digest, found_)) {
            return;
        }

        int ends[2];
        if (pipe2(ends, O_CLOEXEC) != 0) {
            found_.obstacle = errno;
            return;
        }

        child_ = fork();
        if (child_ == 0) {
            look(use, user, ends[1]);
        }
        if (child_ < 0) {
            found_.obstacle = errno;
            ::close(ends[0]);
        }
        ::close(ends[1]);
        results_ = ends[0];
    }

    /// Waits for the result until `deadline`, then ends the child.
    void finish(const store_use &use, ngx_msec_t deadline) noexcept
    {
        if (child_ < 0) {
            return;
        }

        std::array<std::byte, sizeof(trial_result) + 1> bytes;  // one more, to see the end
        std::size_t length = 0;
        bool has_ended = false;
        while (!has_ended && can_read(deadline)) {
            const ssize_t received = ::read(results_, &bytes[length], bytes.size() - length);
            if (received < 0 || length + static_cast<std::size_t>(received) == bytes.size()) {
                break;
            }
            length += static_cast<std::size_t>(received);
            has_ended = received == 0;
        }
        ::close(results_);

        // The pipe closes when the child exits. Until then, the child exists and the pid is its own.
        if (!has_ended) {
            kill(child_, SIGKILL);
        }
        if (length == sizeof(found_) && is_sound(bytes, use)) {
            ngx_memcpy(&found_, bytes.data(), sizeof(found_));
        } else {
            is_late_ = length == 0 && !has_ended;
            has_died_ = !is_late_;
        }
    }

    /// Waits until the child has exited or `give_up` has come.
    void forget(ngx_msec_t give_up) const noexcept
    {
        while (child_ > 0 && waitpid(child_, nullptr, WNOHANG) == 0 && now_ms() < give_up) {
            poll(nullptr, 0, 1);
        }
    }

    [[nodiscard]] const trial_result &found() const noexcept { return found_; }
    [[nodiscard]] bool is_late() const noexcept { return is_late_; }
    [[nodiscard]] bool has_died() const noexcept { return has_died_; }

private:
    [[noreturn]] static void look(const store_use &use, const workers_user &user, int socket) noexcept
    {
        constexpr int results = STDERR_FILENO + 1;

        // A process that may hang must not keep open what nginx has: sockets, logs, or a pipe that somebody reads.
        if (dup2(socket, results) < 0) {
            _exit(EXIT_FAILURE);
        }
        closefrom(results + 1);
        const int nowhere = ::open("/dev/null", O_RDWR | O_CLOEXEC);
        for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
            dup2(nowhere, stream);
        }

        // Unblock signals that the master blocks: they bound the work on a store. Reset its handlers: they would write
        // to the log, whose descriptor now belongs to a file of the store.
        for (int number = 1; number < NSIG; number++) {
            (void) std::signal(number, SIG_DFL);
        }
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, nullptr);

        static trial_result found;  // so that the bytes between its members are 0
        found.obstacle = become(user);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (found.obstacle == 0) {
            look_at(*use.store, *use.make_digest, found);
        }
        _exit(::write(results, &found, sizeof(found)) == sizeof(found) ? EXIT_SUCCESS : EXIT_FAILURE);
    }

    /// Whether a result makes sense: whoever can write to lock.mdb may have taken over the process that sent it.
    [[nodiscard]] static bool is_sound(std::span<const std::byte> bytes, const store_use &use) noexcept
    {
        const auto is_flag = [&](std::size_t offset) { return std::to_integer<unsigned>(bytes[offset]) <= 1; };
        store::refusal refused;
        ngx_memcpy(&refused, &bytes[offsetof(trial_result, refused)], sizeof(refused));

        return refused.part <= store::store_part::lock && refused.way_length <= use.store->path.len
               && is_flag(offsetof(trial_result, has_group)) && is_flag(offsetof(trial_result, has_stale_groups))
               && is_flag(offsetof(trial_result, is_led_by_root)) && is_flag(offsetof(trial_result, has_data));
    }

    [[nodiscard]] bool can_read(ngx_msec_t deadline) const noexcept
    {
        for (;;) {
            const ngx_msec_t now = now_ms();
            struct pollfd result = {results_, POLLIN, 0};
            const int ready = poll(&result, 1, now < deadline ? static_cast<int>(deadline - now) : 0);
            if (ready >= 0 || errno != EINTR) {
                return ready > 0;
            }
        }
    }

    pid_t child_ = -1;
    int results_ = -1;
    trial_result found_;
    bool is_late_ = false;
    bool has_died_ = false;
};

/// The name of a user or group of this host, or its number if it has none.
class account_name {
public:
    static account_name of_user(uid_t number) noexcept
    {
        const passwd *known = getpwuid(number);
        return {known != nullptr ? known->pw_name : nullptr, number};
    }

    static account_name of_group(gid_t number) noexcept
    {
        const struct group *known = getgrgid(number);
        return {known != nullptr ? known->gr_name : nullptr, number};
    }

    /// The primary group of a user; nogroup if the host does not know the user.
    static account_name of_group_of(uid_t number) noexcept
    {
        constexpr gid_t no_group = 65534;
        const passwd *known = getpwuid(number);
        return of_group(known != nullptr ? known->pw_gid : no_group);
    }

    [[nodiscard]] const char *text() const noexcept { return reinterpret_cast<const char *>(text_); }

private:
    account_name(const char *name, ngx_uint_t number) noexcept
    {
        u_char *end = name != nullptr ? ngx_snprintf(text_, sizeof(text_) - 1, "%s", name)
                                      : ngx_snprintf(text_, sizeof(text_) - 1, "%ui", number);
        *end = '\0';
    }

    u_char text_[64];
};

/// What the workers' user may not do with a store, and the command that permits it.
class explanation {
public:
    explanation(const store_use &use, const trial_result &found, const workers_user &user) noexcept
    {
        if (found.problem.kind == store::fault_kind::shared) {
            write(": %s", store::repair_command(path_of(use)).text());
        }
        if (found.refused.part != store::store_part::none) {
            explain(use, found, user);
        }
    }

    [[nodiscard]] const char *text() const noexcept { return reinterpret_cast<const char *>(text_); }

private:
    static const char *path_of(const store_use &use) noexcept
    {
        return reinterpret_cast<const char *>(use.store->path.data);
    }

    template <typename... Arguments>
    void write(const char *format, Arguments... arguments) noexcept
    {
        *ngx_snprintf(text_, sizeof(text_) - 1, format, arguments...) = '\0';
    }

    void explain(const store_use &use, const trial_result &found, const workers_user &user) noexcept
    {
        const store::refusal &refused = found.refused;
        store::file_path target;
        const char *act = "read";
        bool fits = true;

        switch (refused.part) {
        case store::store_part::none: return;
        case store::store_part::way:
            fits = target.set_start(path_of(use), refused.way_length);
            act = "enter";
            break;
        case store::store_part::open_lock: fits = target.set(path_of(use), store::open_lock_file); break;
        case store::store_part::data: fits = target.set(path_of(use), store::data_file); break;
        case store::store_part::lock:
            fits = target.set(path_of(use), store::lock_file);
            act = "write";
            break;
        }
        if (!fits) {
            return;
        }

        const bool is_above = refused.part == store::store_part::way && refused.way_length < use.store->path.len;
        store::shell_command command;
        const char *remedy = command.text();
        if (found.has_stale_groups) {
            remedy = "restart nginx, which still has the groups that its user had when it was started";
        } else if (!is_above) {
            open_to_group(use, found, user, command);
        } else if (refused.user != 0) {
            remedy = "its owner must let that user enter it";
        } else if (!found.is_led_by_root) {
            remedy = "another user can redirect that path, so first see whether nginx should follow it";
        } else {
            open_folder(target.text(), found, user, command);
        }

        const account_name owner = account_name::of_user(refused.user);
        const account_name group = account_name::of_group(refused.group);
        write(": user \"%s\" may not %s \"%s\", which belongs to user \"%s\" and group \"%s\": %s", user.name, act,
              target.text(), owner.text(), group.text(), remedy);
    }

    static account_name group_of(const workers_user &user) noexcept
    {
        return account_name::of_group(user.conf != nullptr ? user.conf->group : getegid());
    }

    /// Makes the command for a folder above the store.
    static void open_folder(const char *folder, const trial_result &found, const workers_user &user,
                            store::shell_command &command) noexcept
    {
        if (!found.has_group) {
            command.append("chgrp ");
            command.append(group_of(user).text());
            command.append(" ");
            command.append_quoted(folder);
            command.append(" && ");
        }
        command.append("chmod g+x ");
        command.append_quoted(folder);
    }

    /// Makes the command for the store. Root follows no link in it: -R does not, and the rest is run by the owner, who
    /// gets neither a group nor a terminal of root's.
    static void open_to_group(const store_use &use, const trial_result &found, const workers_user &user,
                              store::shell_command &command) noexcept
    {
        const char *folder = path_of(use);
        const bool is_roots = found.refused.user == 0;  // who opens no store that a group can write to
        const account_name owner = account_name::of_user(found.refused.user);

        if (is_roots || !found.has_group) {
            if (is_roots) {
                store::append_change_of_owner(command);
                command.append(":");
            } else {
                command.append("chgrp -R ");
            }
            command.append(group_of(user).text());
            command.append(" ");
            command.append_quoted(folder);
            command.append(" && ");
        }
        command.append("setsid -w setpriv --reset-env --clear-groups --reuid=");
        command.append(is_roots ? store::default_owner : owner.text());
        command.append(" --regid=");
        command.append(is_roots ? store::default_owner : account_name::of_group_of(found.refused.user).text());
        command.append(" sh -c 'chmod -R g+rX \"$0\" && chmod g+w \"$0/");
        command.append(store::lock_file);
        command.append("\"' ");
        command.append_quoted(folder);
    }

    u_char text_[6 * PATH_MAX] = {};
};

/// Logs what was found. Returns false for a fault that neither pat-sync nor time can fix.
[[nodiscard]] bool report(const store_use &use, const trial &seen, const workers_user &user, ngx_log_t *log) noexcept
{
    const ngx_str_t &path = use.store->path;
    const directive_location &location = use.location;
    const store::fault problem = seen.found().problem;

    if (seen.is_late()) {
        ngx_log_error(
            NGX_LOG_WARN, log, 0,
            "auth_pat store \"%V\": user \"%s\" could not check it within %M ms: see which process holds locks on "
            "its files, used by \"auth_pat\" in %V:%ui",
            &path, user.name, deadline_ms, &location.file, location.line);
        return true;
    }
    if (seen.found().obstacle != 0) {
        ngx_log_error(NGX_LOG_WARN, log, seen.found().obstacle,
                      "auth_pat store \"%V\": no process of user \"%s\" could check it, used by \"auth_pat\" in %V:%ui",
                      &path, user.name, &location.file, location.line);
        return true;
    }
    if (seen.has_died()) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "auth_pat store \"%V\": a process of user \"%s\" that checked it has crashed: see whether its "
                      "files are damaged, used by \"auth_pat\" in %V:%ui",
                      &path, user.name, &location.file, location.line);
        return true;
    }
    if (!problem) {
        return true;
    }

    const bool is_final =
        problem.kind == store::fault_kind::wrong_pepper || problem.kind == store::fault_kind::newer_format
        || problem.kind == store::fault_kind::newer_lmdb || problem.kind == store::fault_kind::bad_library;
    const ngx_uint_t level = is_final ? NGX_LOG_EMERG : NGX_LOG_WARN;
    ngx_log_error(level, log, 0, "auth_pat store \"%V\": %s%s, used by \"auth_pat\" in %V:%ui", &path,
                  store::fault_text{problem}.text(), explanation{use, seen.found(), user}.text(), &location.file,
                  location.line);
    return !is_final;
}

/// Logs paths that lead to the same store, as LMDB must not open a file twice in a process. Returns whether nginx may
/// use the configuration: if others can redirect a path, this is only a warning, or they could stop nginx.
[[nodiscard]] bool report_same(const ngx_array_t &uses, const trial *seen, ngx_log_t *log) noexcept
{
    bool is_good = true;
    for (ngx_uint_t i = 0; i < uses.nelts; i++) {
        for (ngx_uint_t k = 0; k < i; k++) {
            const store_use &use = items<store_use>(uses)[i];
            const store_use &other = items<store_use>(uses)[k];
            if (use.store == other.store || !seen[i].found().has_data || !seen[k].found().has_data
                || seen[i].found().data != seen[k].found().data) {
                continue;
            }
            const bool is_by_others = seen[i].found().is_led_by_others || seen[k].found().is_led_by_others;
            is_good = is_good && is_by_others;
            const ngx_uint_t level = is_by_others ? NGX_LOG_WARN : NGX_LOG_EMERG;
            ngx_log_error(level, log, 0,
                          "auth_pat store \"%V\" in %V:%ui is the same as \"%V\" in %V:%ui: use one path for it",
                          &use.store->path, &use.store->location.file, use.store->location.line, &other.store->path,
                          &other.store->location.file, other.store->location.line);
        }
    }
    return is_good;
}

/// Checks the stores that will be used. Returns false if nginx must not use the configuration.
[[nodiscard]] bool look_at_all(ngx_cycle_t *cycle, const ngx_array_t &uses) noexcept
{
    const auto *core = reinterpret_cast<const ngx_core_conf_t *>(ngx_get_conf(cycle->conf_ctx, ngx_core_module));
    const bool changes_user = geteuid() == 0 && core->master != 0;
    const account_name own = account_name::of_user(geteuid());
    const workers_user user = {changes_user ? core : nullptr, changes_user ? core->username : own.text()};

    auto *trials = allocate<trial>(cycle->pool, uses.nelts);
    if (trials == nullptr) {
        return false;
    }

    // nginx's handler reaps any child. Keep it from reaping those that are waited for here.
    sigset_t children;
    sigset_t former;
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, &former);

    // If SIGCHLD is ignored, which is inherited from whatever started nginx, the kernel frees the pid of a child that
    // exits.
    struct sigaction action;
    const bool is_ignored = sigaction(SIGCHLD, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
    if (is_ignored) {
        (void) std::signal(SIGCHLD, SIG_DFL);
    }

    const ngx_msec_t deadline = now_ms() + deadline_ms;
    for (ngx_uint_t i = 0; i < uses.nelts; i++) {
        (new (&trials[i]) trial{})->begin(items<store_use>(uses)[i], user);
    }
    for (ngx_uint_t i = 0; i < uses.nelts; i++) {
        trials[i].finish(items<store_use>(uses)[i], deadline);
    }
    const ngx_msec_t give_up = now_ms() + end_ms;
    for (ngx_uint_t i = 0; i < uses.nelts; i++) {
        trials[i].forget(give_up);
    }

    if (is_ignored) {
        (void) std::signal(SIGCHLD, SIG_IGN);
    }
    sigprocmask(SIG_SETMASK, &former, nullptr);

    bool is_good = report_same(uses, trials, cycle->log);
    for (ngx_uint_t i = 0; is_good && i < uses.nelts; i++) {
        is_good = report(items<store_use>(uses)[i], trials[i], user, cycle->log);
    }
    return is_good;
}

char *init_conf(ngx_cycle_t *cycle, void *) noexcept
{
    // "nginx -s stop" reads the configuration, too, and must not depend on a store.
    const main_conf *mcf = ngx_process == NGX_PROCESS_SIGNALLER ? nullptr : main_conf_of(cycle);

    const bool is_good = mcf == nullptr || look_at_all(cycle, mcf->uses);
    return is_good ? nullptr : reinterpret_cast<char *>(NGX_CONF_ERROR);
}

}  // namespace

}  // namespace pat::ngx
