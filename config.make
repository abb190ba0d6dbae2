# Run by auto/make after it has written the rules: C++20 for our objects, and for no others (--with-cc-opt would reach
# nginx's C files, too). Nothing here may need libstdc++ at run time, which nginx is not linked with; hence -O2, at
# which inline functions of its headers leave no call behind, and no assertions of its own. C++ has no implicit
# functions, and g++ warns about Debian's flag against them.

ngx_auth_pat_flags="-std=c++20 -O2 -Wall -Wextra -Wpedantic -Wshadow -Wno-unused-parameter -Werror \
    -fno-exceptions -fno-rtti -fno-threadsafe-statics -fvisibility=hidden -U_GLIBCXX_ASSERTIONS \
    -I $ngx_addon_dir/src -Wa,-I,$ngx_addon_dir/src"

for ngx_auth_pat_folder in core store nginx
do
    cat << END >> $NGX_MAKEFILE

$NGX_OBJS/addon/$ngx_auth_pat_folder/pat_%.o: CFLAGS := \$(filter-out -Werror=implicit-function-declaration, \$(CFLAGS)) \
    $ngx_auth_pat_flags
END
done
