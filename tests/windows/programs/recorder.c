/* A program for the tests under Wine. By the name that it is started under it is one of:
     netsh, reg, route, net, sc, powershell, tasklist, taskkill: a stand-in that keeps the little state that
       the agent asks for;
     any other name: an active response of Wazuh's form.
   It appends what it was given to "<its path>.log": one line for a start, each argument after a "=" and the
   input in hexadecimal UTF-8, so that nothing in them can change the form of the log. */
#include <windows.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

static wchar_t self[MAX_PATH];

static void hex(FILE *out, const char *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        fprintf(out, "%02x", (unsigned char)bytes[i]);
}

static FILE *beside(const wchar_t *suffix, const wchar_t *mode)
{
    wchar_t path[MAX_PATH + 32];
    swprintf(path, MAX_PATH + 32, L"%ls%ls", self, suffix);
    return _wfopen(path, mode);
}

/* Whether `name` is a line of the state. */
static int has(const wchar_t *name, int *count)
{
    char line[4096], wanted[4096];
    FILE *state = beside(L".state", L"rb");
    *count = 0;
    WideCharToMultiByte(CP_UTF8, 0, name, -1, wanted, sizeof wanted, NULL, NULL);
    if (!state)
        return 0;
    while (fgets(line, sizeof line, state)) {
        line[strcspn(line, "\r\n")] = 0;
        *count += strcmp(line, wanted) == 0;
    }
    fclose(state);
    return *count > 0;
}

static void change(const wchar_t *from, const wchar_t *to)
{
    static char text[1 << 20];
    char line[4096], old[4096], new[4096] = "";
    size_t length = 0;
    FILE *state = beside(L".state", L"rb");
    WideCharToMultiByte(CP_UTF8, 0, from, -1, old, sizeof old, NULL, NULL);
    if (to)
        WideCharToMultiByte(CP_UTF8, 0, to, -1, new, sizeof new, NULL, NULL);
    while (state && fgets(line, sizeof line, state)) {
        line[strcspn(line, "\r\n")] = 0;
        if (strcmp(line, old) != 0)
            length += snprintf(text + length, sizeof text - length, "%s\n", line);
        else if (to)
            length += snprintf(text + length, sizeof text - length, "%s\n", new);
    }
    if (state)
        fclose(state);
    state = beside(L".state", L"wb");
    fwrite(text, 1, length, state);
    fclose(state);
}

static void add(const wchar_t *name)
{
    char text[4096];
    FILE *state = beside(L".state", L"ab");
    WideCharToMultiByte(CP_UTF8, 0, name, -1, text, sizeof text, NULL, NULL);
    fprintf(state, "%s\n", text);
    fclose(state);
}

static const wchar_t *value(int argc, wchar_t **argv, const wchar_t *key)
{
    for (int i = argc - 1; i > 0; i--)
        if (wcsncmp(argv[i], key, wcslen(key)) == 0)
            return argv[i] + wcslen(key);
    return L"";
}

static int is(int argc, wchar_t **argv, int place, const wchar_t *word)
{
    return argc > place && wcscmp(argv[place], word) == 0;
}

static int netsh(int argc, wchar_t **argv)
{
    int count;
    if (is(argc, argv, 1, L"advfirewall")) {
        const wchar_t *first = L"";
        for (int i = 1; i < argc && !*first; i++)
            if (wcsncmp(argv[i], L"name=", 5) == 0)
                first = argv[i] + 5;
        if (is(argc, argv, 3, L"add"))
            add(first);
        else if (!has(first, &count))
            return 1;
        else if (is(argc, argv, 3, L"delete"))
            change(first, NULL);
        else if (is(argc, argv, 3, L"set"))
            change(first, value(argc, argv, L"name="));
        else
            while (count-- > 0)
                printf("Rule Name: %ls\n", first);
        return 0;
    }
    if (is(argc, argv, 3, L"add"))
        add(value(argc, argv, L"prefix="));
    else if (is(argc, argv, 3, L"delete"))
        change(value(argc, argv, L"prefix="), NULL);
    else {
        char line[4096];
        FILE *state = beside(L".state", L"rb");
        while (state && fgets(line, sizeof line, state))
            printf("No       Manual    256  %s", line);
        if (state)
            fclose(state);
    }
    return 0;
}

static int net(int argc, wchar_t **argv)
{
    if (!is(argc, argv, 1, L"user"))
        return 0;
    if (wcsncmp(argv[2], L"missing", 7) == 0) {
        fprintf(stderr, "The user name could not be found.\n");
        return 2;
    }
    change(argv[2], NULL);
    if (is(argc, argv, 3, L"/active:no"))
        add(argv[2]);
    return 0;
}

/* The flag of a disabled account, from the state of net.exe beside it. */
static int powershell(int argc, wchar_t **argv)
{
    wchar_t name[256] = L"", *start = wcsstr(argv[argc - 1], L"WinNT://./"), *slash;
    int count, is_disabled;
    for (int i = 1; i < argc; i++)
        if (is(argc, argv, i, L"-File"))
            return printf("ran a script\n") < 0;
    if (!start)
        return 1;
    wcsncpy(name, start + 10, 255);
    if (wcsncmp(name, L"missing", 7) == 0) {
        fprintf(stderr, "The user name could not be found.\n");
        return 1;
    }
    name[wcscspn(name, L",")] = 0;
    GetSystemDirectoryW(self, MAX_PATH);
    wcscat(self, L"\\net.exe");
    slash = name;
    is_disabled = has(slash, &count);
    printf("%d\n", is_disabled ? 2 : 0);
    return 0;
}

/* Words of an argument or of the input that make an active response do something else than record. */
static void act(const char *input)
{
    const char *text;
    if (strstr(input, "riposte-test-hang")) {
        wchar_t command[MAX_PATH * 2];
        STARTUPINFOW start = { .cb = sizeof start };
        PROCESS_INFORMATION child;
        swprintf(command, MAX_PATH * 2, L"\"%ls\" riposte-test-child", self);
        if (CreateProcessW(self, command, NULL, NULL, FALSE, 0, NULL, NULL, &start, &child)) {
            FILE *log = beside(L".children", L"ab");
            fprintf(log, "%lu %lu\n", GetCurrentProcessId(), child.dwProcessId);
            fclose(log);
        }
        Sleep(120000);
    }
    if ((text = strstr(input, "riposte-test-exit-")) != NULL)
        ExitProcess(atoi(text + strlen("riposte-test-exit-")));
}

int wmain(int argc, wchar_t **argv)
{
    static char input[1 << 16], argument[1 << 16];
    size_t length = 0;
    wchar_t *name;
    FILE *log;

    GetModuleFileNameW(NULL, self, MAX_PATH);
    name = wcsrchr(self, L'\\') ? wcsrchr(self, L'\\') + 1 : self;
    if (is(argc, argv, 1, L"riposte-test-child") || is(argc, argv, 1, L"riposte-test-sleep")) {
        Sleep(120000);
        return 0;
    }
    if (is(argc, argv, 1, L"riposte-test-hold")) {
        HANDLE file = CreateFileW(argv[2], GENERIC_READ, 0, NULL, OPEN_EXISTING, 0, NULL);
        Sleep(file == INVALID_HANDLE_VALUE ? 0 : 120000);
        return 1;
    }
    /* One line, as Wazuh's own programs read it. */
    if (GetFileType(GetStdHandle(STD_INPUT_HANDLE)) == FILE_TYPE_PIPE && fgets(input, sizeof input, stdin))
        length = strlen(input);
    log = beside(L".log", L"ab");
    for (int i = 1; i < argc; i++) {
        int size = WideCharToMultiByte(CP_UTF8, 0, argv[i], -1, argument, sizeof argument, NULL, NULL);
        fputc('=', log);
        hex(log, argument, size - 1);
        fputc(' ', log);
    }
    fputc('|', log);
    hex(log, input, length);
    fputc('\n', log);
    fclose(log);
    for (wchar_t *end = name; *end; end++)
        *end = towlower(*end);
    if (wcscmp(name, L"netsh.exe") == 0)
        return netsh(argc, argv);
    if (wcscmp(name, L"reg.exe") == 0)
        return printf("    EnableFirewall    REG_DWORD    0x1\n") < 0;
    if (wcscmp(name, L"net.exe") == 0)
        return net(argc, argv);
    if (wcscmp(name, L"powershell.exe") == 0)
        return powershell(argc, argv);
    if (wcscmp(name, L"tasklist.exe") == 0)
        return printf("INFO: No tasks are running which match the specified criteria.\n") < 0;
    if (wcscmp(name, L"taskkill.exe") == 0)
        return 0;
    act(input);
    printf("recorded\n");
    return 0;
}
