#include "nginx/pat_directives.h"

#include "core/pat_bytes.h"
#include "core/pat_policy.h"
#include "core/pat_token.h"
#include "nginx/pat_conf.h"
#include "nginx/pat_recheck.h"
#include "nginx/pat_status.h"
#include "nginx/pat_zone.h"
#include "store/pat_environment.h"

#include <algorithm>
#include <new>

namespace pat::ngx {

namespace {

ngx_conf_enum_t preflight_values[] = {
    {ngx_string("check"), 0},
    {ngx_string("pass"), 1},
    {ngx_null_string, 0},
};

ngx_conf_enum_t status_formats[] = {
    {ngx_string("json"), static_cast<ngx_uint_t>(status_format::json)},
    {ngx_string("prometheus"), static_cast<ngx_uint_t>(status_format::prometheus)},
    {ngx_string("html"), static_cast<ngx_uint_t>(status_format::html)},
    {ngx_null_string, 0},
};

ngx_conf_num_bounds_t at_most_a_year = {ngx_conf_check_num_bounds, 0, ngx_int_t{365} * 24 * 3600};

char *const conf_ok = nullptr;  // NGX_CONF_OK, without its cast

[[nodiscard]] char *conf_error() noexcept
{
    return reinterpret_cast<char *>(NGX_CONF_ERROR);
}

template <typename T>
[[nodiscard]] bool is_unset(T *pointer) noexcept
{
    return pointer == reinterpret_cast<T *>(NGX_CONF_UNSET_PTR);
}

template <typename T>
void unset(T *&pointer) noexcept
{
    pointer = reinterpret_cast<T *>(NGX_CONF_UNSET_PTR);
}

[[nodiscard]] char *duplicate() noexcept
{
    static char message[] = "is duplicate";
    return message;
}

/// The arguments of the directive being read; the first is its name.
[[nodiscard]] std::span<ngx_str_t> arguments(ngx_conf_t *cf) noexcept
{
    return items<ngx_str_t>(*cf->args);
}

[[nodiscard]] directive_location location_of(ngx_conf_t *cf) noexcept
{
    return {cf->conf_file->file.name, cf->conf_file->line};
}

[[nodiscard]] char *invalid_parameter(ngx_conf_t *cf, ngx_str_t &parameter) noexcept
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid parameter \"%V\"", &parameter);
    return conf_error();
}

[[nodiscard]] bool compile(ngx_conf_t *cf, ngx_str_t &text, ngx_http_complex_value_t &out) noexcept
{
    ngx_http_compile_complex_value_t compiling = {};
    compiling.cf = cf;
    compiling.value = &text;
    compiling.complex_value = &out;
    return ngx_http_compile_complex_value(&compiling) == NGX_OK;
}

void wipe_hasher(void *data) noexcept
{
    static_cast<token_hasher *>(data)->wipe();
}

/// Has what was derived from a pepper wiped when the cycle ends.
[[nodiscard]] bool wipe_at_end(ngx_conf_t *cf, token_hasher &secret) noexcept
{
    ngx_pool_cleanup_t *cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (cleanup == nullptr) {
        return false;
    }
    cleanup->handler = wipe_hasher;
    cleanup->data = &secret;
    return true;
}

/// Reads the pepper at `path` into `out`. On failure, logs the error and returns false.
[[nodiscard]] bool read_pepper(ngx_conf_t *cf, ngx_str_t &path, token_hasher &out) noexcept
{
    // One byte more than the longest valid contents: 128 digits followed by "\r\n".
    u_char contents[2 * max_pepper_length + 3];
    ngx_file_info_t info;

    ngx_fd_t fd = ngx_open_file(path.data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);
    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, ngx_open_file_n " \"%V\" failed", &path);
        return false;
    }

    const ssize_t size = ngx_read_fd(fd, contents, sizeof(contents));
    if (size < 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, ngx_read_fd_n " \"%V\" failed", &path);
    }
    if (ngx_fd_info(fd, &info) != NGX_FILE_ERROR && (info.st_mode & (S_IROTH | S_IWOTH)) != 0) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0, "pepper file \"%V\" is accessible to all users", &path);
    }
    ngx_close_file(fd);

    if (size < 0) {
        return false;
    }

    std::optional<pepper> key =
        parse_pepper({reinterpret_cast<const char *>(contents), static_cast<std::size_t>(size)});
    ngx_explicit_memzero(contents, sizeof(contents));

    if (!key) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "pepper file \"%V\" must hold 32 to 64 bytes, or 64 to 128 hexadecimal digits", &path);
        return false;
    }

    new (&out) token_hasher{*key};
    ngx_explicit_memzero(&*key, sizeof(*key));

    return wipe_at_end(cf, out);
}

[[nodiscard]] char *duplicate_parameter(ngx_conf_t *cf, ngx_str_t &parameter) noexcept
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate parameter \"%V\"", &parameter);
    return conf_error();
}

/// Whether two ASCII texts are the same, apart from the case of letters.
[[nodiscard]] bool is_same_word(const ngx_str_t &word, const ngx_str_t &other) noexcept
{
    return word.len == other.len && ngx_strncasecmp(word.data, other.data, word.len) == 0;
}

/// `scheme=`, with names separated by commas.
[[nodiscard]] char *add_schemes(ngx_conf_t *cf, ngx_str_t &parameter, std::string_view names,
                                source_conf &sources) noexcept
{
    struct {
        ngx_str_t name;
        bool &accepted;
    } const known[] = {
        {ngx_string("bearer"), sources.schemes.bearer},
        {ngx_string("token"), sources.schemes.token},
        {ngx_string("basic"), sources.schemes.basic},
    };

    while (true) {
        const std::size_t length = std::min(names.find(','), names.size());
        ngx_str_t name = to_ngx(head(names, length));

        const auto *scheme =
            std::ranges::find_if(known, [&](const auto &candidate) { return is_same_word(candidate.name, name); });
        if (scheme == std::end(known)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid scheme \"%V\": must be bearer, basic or token", &name);
            return conf_error();
        }
        if (scheme->accepted) {
            return duplicate_parameter(cf, parameter);
        }
        scheme->accepted = true;

        if (length == names.size()) {
            return conf_ok;
        }
        names = tail(names, length + 1);
    }
}

/// `user=`
[[nodiscard]] char *set_user(ngx_conf_t *cf, ngx_str_t &parameter, std::string_view user, source_conf &sources) noexcept
{
    if (!sources.schemes.user.empty()) {
        return duplicate_parameter(cf, parameter);
    }
    if (user.empty() || has_control(user) || user.find_first_of(":$") != std::string_view::npos) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must be a user name, without variables, colons and control characters", &parameter);
        return conf_error();
    }
    sources.schemes.user = user;
    return conf_ok;
}

/// Whether nginx reads a header of this name itself.
[[nodiscard]] bool is_known_to_nginx(const ngx_str_t &name) noexcept
{
    for (const ngx_http_header_t *known = ngx_http_headers_in; known->name.len != 0; known++) {
        if (is_same_word(known->name, name)) {
            return true;
        }
    }
    return false;
}

/// Whether clients or proxies fill or drop a header of this name by themselves, so that no token can rely on it: those
/// of one connection (RFC 9110, section 7.6.1), those that scripts may not set (Fetch standard, forbidden
/// request-header), and `Accept` and `Forwarded`. What begins with one that ends in "-" is meant, too. Each nginx knows
/// the others of these.
[[nodiscard]] bool is_reserved(const ngx_str_t &name) noexcept
{
    constexpr std::string_view reserved[] = {"accept", "accept-", "access-control-", "date", "forwarded", "origin",
                                             "proxy-", "sec-",    "trailer",         "via"};

    return std::ranges::any_of(reserved, [&](std::string_view known) {
        return name.len >= known.size() && (name.len == known.size() || known.ends_with('-'))
               && ngx_strncasecmp(name.data, to_ngx(known).data, known.size()) == 0;
    });
}

/// `header=`
[[nodiscard]] char *add_header(ngx_conf_t *cf, ngx_str_t &parameter, std::string_view text,
                               source_conf &sources) noexcept
{
    constexpr ngx_uint_t a_few = 2;
    constexpr byte_set name_characters{"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-"};

    const ngx_str_t given = to_ngx(text);
    const ngx_str_t authorization = ngx_string("Authorization");
    const ngx_str_t cookie = ngx_string("Cookie");

    const char *remedy = nullptr;
    if (text.empty() || text.starts_with('-') || !name_characters.has_all(text)) {
        remedy = "a name begins with a letter or digit, and has these and \"-\"; for another one, use "
                 "\"token=$http_NAME\"";
    } else if (is_same_word(given, authorization)) {
        remedy = "use \"scheme=\"";
    } else if (is_same_word(given, cookie)) {
        remedy = "use \"token=$cookie_NAME\"";
    } else if (is_known_to_nginx(given) || is_reserved(given)) {
        remedy = "it has another meaning; use a name such as \"X-API-Key\"";
    }
    if (remedy != nullptr) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid header \"%V\": %s", &given, remedy);
        return conf_error();
    }

    if (sources.headers == nullptr) {
        sources.headers = ngx_array_create(cf->pool, a_few, sizeof(ngx_str_t));
        if (sources.headers == nullptr) {
            return conf_error();
        }
    }
    for (const ngx_str_t &known : items<ngx_str_t>(*sources.headers)) {
        if (is_same_word(known, given)) {
            return duplicate_parameter(cf, parameter);
        }
    }

    auto *lower = allocate<u_char>(cf->pool, given.len);
    auto *name = push<ngx_str_t>(*sources.headers);
    if (lower == nullptr || name == nullptr) {
        return conf_error();
    }
    ngx_strlow(lower, given.data, given.len);
    *name = {given.len, lower};
    return conf_ok;
}

/// `token=`
[[nodiscard]] char *set_token(ngx_conf_t *cf, ngx_str_t &parameter, std::string_view text,
                              source_conf &sources) noexcept
{
    if (sources.token != nullptr) {
        return duplicate_parameter(cf, parameter);
    }

    ngx_str_t source = to_ngx(text);
    if (ngx_http_script_variables_count(&source) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\" must name a variable that holds the token", &parameter);
        return conf_error();
    }

    sources.token = allocate<ngx_http_complex_value_t>(cf->pool);
    if (sources.token == nullptr || !compile(cf, source, *sources.token)) {
        return conf_error();
    }
    return conf_ok;
}

/// Whether the variable of a header that is read anyway is in `token=`: then, each credential in that header would be
/// there twice.
[[nodiscard]] bool is_read_twice(ngx_conf_t *cf, const source_conf &sources) noexcept
{
    constexpr std::string_view start = "http_";
    constexpr auto end = static_cast<ngx_uint_t>(-1);

    const auto *core =
        static_cast<const ngx_http_core_main_conf_t *>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    const auto variables = items<ngx_http_variable_t>(core->variables);

    for (const ngx_uint_t *index = sources.token->flushes; index != nullptr && *index != end; index++) {
        const std::string_view variable = view(variables[*index].name);
        if (!variable.starts_with(start)) {
            continue;
        }
        const std::string_view header = tail(variable, start.size());
        if (sources.has_authorization() && header == "authorization") {
            return true;
        }
        if (sources.headers != nullptr
            && std::ranges::any_of(items<ngx_str_t>(*sources.headers),
                                   [&](const ngx_str_t &name) { return is_same_variable(view(name), header); })) {
            return true;
        }
    }
    return false;
}

[[nodiscard]] char *set_sources(ngx_conf_t *cf, std::span<ngx_str_t> parameters, source_conf &sources) noexcept
{
    constexpr struct {
        std::string_view name;
        char *(*set)(ngx_conf_t *, ngx_str_t &, std::string_view, source_conf &) noexcept;
    } known[] = {{"scheme=", add_schemes}, {"user=", set_user}, {"header=", add_header}, {"token=", set_token}};

    for (ngx_str_t &parameter : parameters) {
        const auto *found = std::ranges::find_if(
            known, [&](const auto &candidate) { return view(parameter).starts_with(candidate.name); });
        if (found == std::end(known)) {
            return invalid_parameter(cf, parameter);
        }
        char *const result = found->set(cf, parameter, tail(view(parameter), found->name.size()), sources);
        if (result != conf_ok) {
            return result;
        }
    }

    if (!sources.schemes.user.empty() && !sources.schemes.basic) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"user=\" needs \"scheme=basic\"");
        return conf_error();
    }
    if (sources.token != nullptr && is_read_twice(cf, sources)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"token=%V\" has a header that \"scheme=\" or \"header=\" reads",
                           &sources.token->value);
        return conf_error();
    }
    if (!sources.has_authorization() && sources.token == nullptr) {
        sources.schemes.bearer = true;
    }
    return conf_ok;
}

char *set_auth_pat(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    auto &lcf = *static_cast<loc_conf *>(data);
    const auto args = arguments(cf);

    if (!is_unset(lcf.realm)) {
        return duplicate();
    }

    lcf.location = location_of(cf);

    if (view(args[1]) == "off") {
        lcf.realm = nullptr;
        return args.size() == 2 ? conf_ok : invalid_parameter(cf, args[2]);
    }

    lcf.realm = allocate<ngx_http_complex_value_t>(cf->pool);
    if (lcf.realm == nullptr || !compile(cf, args[1], *lcf.realm)) {
        return conf_error();
    }
    return set_sources(cf, args.subspan(2), lcf.sources);
}

/// Finds the store of a path, or adds it. On failure, logs the error and returns nullptr.
[[nodiscard]] store_conf *find_or_add_store(ngx_conf_t *cf, const ngx_str_t &path, std::size_t map_size) noexcept
{
    ngx_array_t &stores = main_conf_of(cf).stores;

    for (store_conf *known : items<store_conf *>(stores)) {
        if (view(known->path) != view(path)) {
            continue;
        }
        if (known->map_size != map_size) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "store \"%V\" has a different map size in %V:%ui", &path,
                               &known->location.file, known->location.line);
            return nullptr;
        }
        return known;
    }

    auto *added = allocate<store_conf>(cf->pool);
    auto **entry = push<store_conf *>(stores);
    if (added == nullptr || entry == nullptr) {
        return nullptr;
    }
    *added = {path, map_size, location_of(cf), 0, nullptr};
    *entry = added;
    return added;
}

char *set_store(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    constexpr std::string_view map_size_parameter = "map_size=";

    auto &lcf = *static_cast<loc_conf *>(data);
    const auto args = arguments(cf);

    if (!is_unset(lcf.store)) {
        return duplicate();
    }

    ngx_str_t path = args[1];
    while (path.len > 1 && path.data[path.len - 1] == '/') {
        path.data[--path.len] = '\0';
    }
    if (path.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"auth_pat_store\" needs the path of a folder");
        return conf_error();
    }
    if (ngx_conf_full_name(cf->cycle, &path, 0) != NGX_OK) {
        return conf_error();
    }

    std::size_t map_size = store::default_map_size;
    if (args.size() == 3) {
        if (!view(args[2]).starts_with(map_size_parameter)) {
            return invalid_parameter(cf, args[2]);
        }
        ngx_str_t text = to_ngx(tail(view(args[2]), map_size_parameter.size()));
        const off_t size = ngx_parse_offset(&text);
        if (size < static_cast<off_t>(ngx_pagesize)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid map size \"%V\"", &text);
            return conf_error();
        }
        map_size = static_cast<std::size_t>(size);
    }

    lcf.store = find_or_add_store(cf, path, map_size);
    return lcf.store != nullptr ? conf_ok : conf_error();
}

char *set_pepper_file(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    auto &lcf = *static_cast<loc_conf *>(data);
    ngx_str_t path = arguments(cf)[1];

    if (!is_unset(lcf.make_digest)) {
        return duplicate();
    }

    main_conf &mcf = main_conf_of(cf);

    if (view(path) == "off") {
        lcf.make_digest = &mcf.plain;
        return conf_ok;
    }
    if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return conf_error();
    }

    for (pepper_conf *known : items<pepper_conf *>(mcf.peppers)) {
        if (view(known->path) == view(path)) {
            lcf.make_digest = &known->make_digest;
            return conf_ok;
        }
    }

    auto *added = allocate<pepper_conf>(cf->pool);
    auto **entry = push<pepper_conf *>(mcf.peppers);
    if (added == nullptr || entry == nullptr || !read_pepper(cf, path, added->make_digest)) {
        return conf_error();
    }

    added->path = path;
    *entry = added;
    lcf.make_digest = &added->make_digest;
    return conf_ok;
}

char *set_prefix(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    auto &lcf = *static_cast<loc_conf *>(data);
    ngx_str_t &prefix = arguments(cf)[1];

    if (lcf.prefix.data != nullptr) {
        return duplicate();
    }
    if (view(prefix) == "off") {
        ngx_str_set(&lcf.prefix, "");
        return conf_ok;
    }
    if (!is_prefix(view(prefix))) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid prefix \"%V\": 1 to 32 letters, digits, \"_\", \"-\" and \".\" are allowed",
                           &prefix);
        return conf_error();
    }

    lcf.prefix = prefix;
    return conf_ok;
}

/// Whether each scope in a text is valid; variables are known only at run time.
[[nodiscard]] bool are_scopes(ngx_str_t &text) noexcept
{
    if (ngx_http_script_variables_count(&text) != 0) {
        return true;
    }
    std::string_view rest = view(text);
    for (std::string_view scope = take_scope(rest); !scope.empty(); scope = take_scope(rest)) {
        if (!is_scope(scope)) {
            return false;
        }
    }
    return true;
}

char *set_require_scope(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    constexpr std::string_view match_parameter = "match=";

    auto &lcf = *static_cast<loc_conf *>(data);
    const auto args = arguments(cf).subspan(1);

    // Join the scopes into one complex value, so that a request evaluates only one, or none if it is constant.
    std::size_t room = 0;
    for (const ngx_str_t &arg : args) {
        room += arg.len + 1;
    }
    auto *joined = allocate<u_char>(cf->pool, room);
    if (joined == nullptr) {
        return conf_error();
    }

    bool any = false;
    u_char *p = joined;
    for (ngx_str_t &arg : args) {
        if (view(arg).starts_with(match_parameter)) {
            const std::string_view match = tail(view(arg), match_parameter.size());
            if (match != "all" && match != "any") {
                return invalid_parameter(cf, arg);
            }
            any = match == "any";
            continue;
        }
        if (!are_scopes(arg)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid scope \"%V\"", &arg);
            return conf_error();
        }
        p = ngx_cpymem(p, arg.data, arg.len);
        *p++ = ' ';
    }
    if (p == joined) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"auth_pat_require_scope\" names no scope");
        return conf_error();
    }

    if (lcf.require_scope == nullptr || is_unset(lcf.require_scope)) {
        lcf.require_scope = ngx_array_create(cf->pool, 1, sizeof(scope_conf));
        if (lcf.require_scope == nullptr) {
            return conf_error();
        }
    }

    auto *added = push<scope_conf>(*lcf.require_scope);
    ngx_str_t text = {static_cast<std::size_t>(p - joined) - 1, joined};
    if (added == nullptr || !compile(cf, text, added->scopes)) {
        return conf_error();
    }
    added->any = any;
    return conf_ok;
}

/// Whether a text that nginx could compile consists only of variables, as $name or ${name}.
[[nodiscard]] bool is_of_variables(std::string_view text) noexcept
{
    constexpr byte_set name_characters{"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"};

    if (text.empty()) {
        return false;
    }
    while (!text.empty()) {
        if (!text.starts_with('$')) {
            return false;
        }
        std::size_t length = 1;
        if (text.starts_with("${")) {
            length = text.find('}') + 1;
        }
        while (text[length - 1] != '}' && length < text.size() && name_characters.has(text[length])) {
            length++;
        }
        text = tail(text, length);
    }
    return true;
}

char *set_require(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    constexpr std::string_view error_parameter = "error=";

    auto &lcf = *static_cast<loc_conf *>(data);
    const auto values = arguments(cf).subspan(1);

    if (lcf.require == nullptr || is_unset(lcf.require)) {
        lcf.require = ngx_array_create(cf->pool, 1, sizeof(require_conf));
        if (lcf.require == nullptr) {
            return conf_error();
        }
    }

    auto *added = push<require_conf>(*lcf.require);
    if (added == nullptr
        || ngx_array_init(&added->values, cf->pool, values.size(), sizeof(ngx_http_complex_value_t)) != NGX_OK) {
        return conf_error();
    }
    added->status = NGX_HTTP_FORBIDDEN;

    for (ngx_str_t &value : values) {
        if (view(value).starts_with(error_parameter)) {
            const std::string_view status = tail(view(value), error_parameter.size());
            added->status = ngx_atoi(to_ngx(status).data, status.size());
            if (added->status < 400 || added->status > 499) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid parameter \"%V\": a status from 400 to 499 is allowed", &value);
                return conf_error();
            }
            continue;
        }

        auto *expression = push<ngx_http_complex_value_t>(added->values);
        if (expression == nullptr || !compile(cf, value, *expression)) {
            return conf_error();
        }
        if (!is_of_variables(view(value))) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" is not a variable: with other text it would never be empty or 0", &value);
            return conf_error();
        }
    }

    if (added->values.nelts == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"auth_pat_require\" names no variable");
        return conf_error();
    }
    return conf_ok;
}

char *set_recheck(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    // A worker rechecks 10,000 requests in about 20 ms.
    constexpr ngx_msec_t shortest = 100;
    constexpr ngx_msec_t a_day = ngx_msec_t{24} * 3600 * 1000;

    auto &lcf = *static_cast<loc_conf *>(data);
    ngx_str_t &text = arguments(cf)[1];

    if (!is_unset(lcf.recheck)) {
        return duplicate();
    }

    const ngx_int_t interval = ngx_parse_time(&text, 0);
    if (interval == 0) {
        lcf.recheck = nullptr;
        return conf_ok;
    }
    if (interval == NGX_ERROR || static_cast<ngx_msec_t>(interval) < shortest
        || static_cast<ngx_msec_t>(interval) > a_day) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid interval \"%V\": must be 0, or 100ms to 1d", &text);
        return conf_error();
    }

    lcf.recheck = find_or_add_queue(cf, main_conf_of(cf), static_cast<ngx_msec_t>(interval));
    return lcf.recheck != nullptr ? conf_ok : conf_error();
}

char *set_zone(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    constexpr std::size_t fewest_pages = 16;

    auto &mcf = *static_cast<main_conf *>(data);
    ngx_str_t &text = arguments(cf)[1];

    if (mcf.zone != nullptr) {
        return duplicate();
    }

    const std::size_t colon = std::min(view(text).find(':'), text.len);
    ngx_str_t name = to_ngx(head(view(text), colon));
    ngx_str_t size_text = to_ngx(tail(view(text), std::min(colon + 1, text.len)));
    const ssize_t size = ngx_parse_size(&size_text);

    if (name.len == 0 || view(name).find('=') != std::string_view::npos || size_text.len == 0 || size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone \"%V\": must be name:size, such as pat:10m, with a size in k or m", &text);
        return conf_error();
    }
    if (static_cast<std::size_t>(size) < fewest_pages * ngx_pagesize) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "zone \"%V\" is too small: the minimum is %uzk", &text,
                           fewest_pages * ngx_pagesize / 1024);
        return conf_error();
    }

    mcf.zone = add_zone(cf, mcf, name, static_cast<std::size_t>(size));
    return mcf.zone != nullptr ? conf_ok : conf_error();
}

[[nodiscard]] char *set_handler(ngx_conf_t *cf, ngx_http_handler_pt handler) noexcept
{
    auto *clcf = static_cast<ngx_http_core_loc_conf_t *>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    clcf->handler = handler;
    return conf_ok;
}

char *set_status(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    auto &lcf = *static_cast<loc_conf *>(data);
    const auto args = arguments(cf);

    if (lcf.has_status) {
        return duplicate();
    }
    lcf.has_status = true;

    if (args.size() == 2) {
        const auto *format = status_formats;
        while (format->name.len != 0
               && (format->name.len != args[1].len || ngx_strcasecmp(format->name.data, args[1].data) != 0)) {
            format++;
        }
        if (format->name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid format \"%V\": must be json, prometheus or html",
                               &args[1]);
            return conf_error();
        }
        lcf.status = static_cast<status_format>(format->value);
    }
    return set_handler(cf, handle_status);
}

char *set_usage(ngx_conf_t *cf, ngx_command_t *, void *data) noexcept
{
    auto &lcf = *static_cast<loc_conf *>(data);

    if (lcf.is_usage) {
        return duplicate();
    }
    lcf.is_usage = true;
    lcf.usage_location = location_of(cf);
    return set_handler(cf, handle_usage);
}

}  // namespace

void *create_main_conf(ngx_conf_t *cf) noexcept
{
    constexpr ngx_uint_t a_few = 4;

    auto *memory = allocate<main_conf>(cf->pool);
    if (memory == nullptr) {
        return nullptr;
    }

    auto *conf = new (memory) main_conf{};
    if (ngx_array_init(&conf->stores, cf->pool, a_few, sizeof(store_conf *)) != NGX_OK
        || ngx_array_init(&conf->peppers, cf->pool, a_few, sizeof(pepper_conf *)) != NGX_OK
        || ngx_array_init(&conf->uses, cf->pool, a_few, sizeof(store_use)) != NGX_OK
        || ngx_array_init(&conf->rechecks, cf->pool, a_few, sizeof(recheck_queue *)) != NGX_OK) {
        return nullptr;
    }
    return conf;
}

void *create_srv_conf(ngx_conf_t *cf) noexcept
{
    return ngx_pcalloc(cf->pool, sizeof(srv_conf));
}

void *create_loc_conf(ngx_conf_t *cf) noexcept
{
    auto *conf = static_cast<loc_conf *>(ngx_pcalloc(cf->pool, sizeof(loc_conf)));
    if (conf == nullptr) {
        return nullptr;
    }

    unset(conf->realm);
    unset(conf->store);
    unset(conf->make_digest);
    unset(conf->require_scope);
    unset(conf->require);
    unset(conf->recheck);
    conf->leeway = NGX_CONF_UNSET;
    conf->optional = NGX_CONF_UNSET;
    conf->pass_preflight = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;
    conf->max_age = NGX_CONF_UNSET;
    conf->fail_open = NGX_CONF_UNSET;
    return conf;
}

char *merge_loc_conf(ngx_conf_t *cf, void *parent, void *child) noexcept
{
    const auto &prev = *static_cast<const loc_conf *>(parent);
    auto &conf = *static_cast<loc_conf *>(child);

    if (is_unset(conf.realm)) {
        conf.realm = is_unset(prev.realm) ? nullptr : prev.realm;
        conf.sources = prev.sources;
        conf.location = prev.location;
    }
    ngx_conf_merge_ptr_value(conf.store, prev.store, nullptr);
    ngx_conf_merge_ptr_value(conf.make_digest, prev.make_digest, &main_conf_of(cf).plain);
    ngx_conf_merge_ptr_value(conf.require_scope, prev.require_scope, nullptr);
    ngx_conf_merge_str_value(conf.prefix, prev.prefix, "");
    ngx_conf_merge_ptr_value(conf.require, prev.require, nullptr);
    ngx_conf_merge_ptr_value(conf.recheck, prev.recheck, nullptr);
    ngx_conf_merge_sec_value(conf.leeway, prev.leeway, 0);
    ngx_conf_merge_value(conf.optional, prev.optional, 0);
    ngx_conf_merge_uint_value(conf.pass_preflight, prev.pass_preflight, 0);
    ngx_conf_merge_value(conf.dry_run, prev.dry_run, 0);
    ngx_conf_merge_sec_value(conf.max_age, prev.max_age, 0);
    ngx_conf_merge_value(conf.fail_open, prev.fail_open, 0);

    if (!conf.has_status) {
        conf.status = prev.status;  // an `if` in the location inherits the handler
    }

    if (conf.is_usage && (conf.store == nullptr || main_conf_of(cf).zone == nullptr)) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "\"auth_pat_usage\" is used without an \"%s\" in %V:%ui",
                      conf.store == nullptr ? "auth_pat_store" : "auth_pat_zone", &conf.usage_location.file,
                      conf.usage_location.line);
        return conf_error();
    }

    if (conf.realm == nullptr) {
        return conf_ok;
    }
    if (conf.store == nullptr) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "\"auth_pat\" is on without an \"auth_pat_store\" in %V:%ui",
                      &conf.location.file, conf.location.line);
        return conf_error();
    }

    ngx_array_t &uses = main_conf_of(cf).uses;

    for (const store_use &known : items<store_use>(uses)) {
        if (known.store == conf.store && known.make_digest == conf.make_digest) {
            return conf_ok;
        }
    }

    auto *use = push<store_use>(uses);
    if (use == nullptr) {
        return conf_error();
    }
    *use = {conf.store, conf.make_digest, conf.location};
    return conf_ok;
}

namespace {

constexpr ngx_uint_t anywhere = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

}  // namespace

ngx_command_t directives[] = {
    {ngx_string("auth_pat"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_1MORE, set_auth_pat, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},

    {ngx_string("auth_pat_store"), anywhere | NGX_CONF_TAKE12, set_store, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_pepper_file"), anywhere | NGX_CONF_TAKE1, set_pepper_file, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},

    {ngx_string("auth_pat_prefix"), anywhere | NGX_CONF_TAKE1, set_prefix, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_leeway"), anywhere | NGX_CONF_TAKE1, ngx_conf_set_sec_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(loc_conf, leeway), &at_most_a_year},

    {ngx_string("auth_pat_require_scope"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_1MORE, set_require_scope,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_require"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_1MORE, set_require,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_optional"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_FLAG, ngx_conf_set_flag_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf, optional), nullptr},

    {ngx_string("auth_pat_preflight"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_TAKE1, ngx_conf_set_enum_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf, pass_preflight), preflight_values},

    {ngx_string("auth_pat_dry_run"), anywhere | NGX_HTTP_LMT_CONF | NGX_CONF_FLAG, ngx_conf_set_flag_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(loc_conf, dry_run), nullptr},

    {ngx_string("auth_pat_max_age"), anywhere | NGX_CONF_TAKE1, ngx_conf_set_sec_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(loc_conf, max_age), &at_most_a_year},

    {ngx_string("auth_pat_fail_open"), anywhere | NGX_CONF_FLAG, ngx_conf_set_flag_slot, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(loc_conf, fail_open), nullptr},

    {ngx_string("auth_pat_recheck"), anywhere | NGX_CONF_TAKE1, set_recheck, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_status"), NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1,
     set_status, NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},

    {ngx_string("auth_pat_usage"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_usage, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},

    ngx_null_command,
};

}  // namespace pat::ngx
