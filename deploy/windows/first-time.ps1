# The first time of the Riposte agent on a real Windows: does most of docs/windows.md on a throw-away machine, and writes a
# report to send back. It needs an elevated PowerShell, an agent that is enrolled and runs, and a key of the manager that may
# respond (role engineer).
#
#   powershell -ExecutionPolicy Bypass -File first-time.ps1 -Manager https://riposte.example.org -KeyFile key.txt
#
# It blocks 203.0.113.77 (an address of no host), makes an account and a file of its own, and removes both.
param(
    [Parameter(Mandatory = $true)][string]$Manager,
    [Parameter(Mandatory = $true)][string]$KeyFile,
    [string]$Agent = $env:COMPUTERNAME.ToLower(),
    [string]$StateDir = 'C:\ProgramData\Riposte',
    [string]$Report = "$env:TEMP\riposte-first-time.txt"
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'
$key = (Get-Content -Raw $KeyFile).Trim()
$program = Join-Path $env:ProgramFiles 'Riposte\riposte-agent.exe'
$lines = New-Object System.Collections.ArrayList

function Tell([string]$step, [bool]$good, [string]$seen) {
    $word = if ($good) { 'ok    ' } else { 'FAILED' }
    $line = "$word $step" + $(if ($seen) { ": $seen" } else { '' })
    [void]$lines.Add($line)
    Write-Host $line
}

function Ask([string]$method, [string]$path, $body) {
    $request = @{ Method = $method; Uri = "$Manager$path"; Headers = @{ Authorization = "Bearer $key" }; UseBasicParsing = $true }
    if ($body) { $request.Body = (ConvertTo-Json $body -Depth 8); $request.ContentType = 'application/json' }
    Invoke-RestMethod @request
}

# Orders a response and waits until every command has a result.
function Respond([string]$action, $target, $arguments, [string]$for) {
    $order = @{ action = $action; target = $target; agents = @($Agent); reason = 'first time on Windows'; break_glass = $true }
    if ($arguments) { $order.arguments = @($arguments) }
    if ($for) { $order['for'] = $for }
    $id = (Ask 'POST' '/v1/responses' $order).id
    Results $id 1
    $id
}

function Results([string]$id, [int]$count) {
    for ($try = 0; $try -lt 120; $try++) {
        $script:last = Ask 'GET' "/v1/responses/$id"
        if (@($script:last.results).Count -ge $count) { return }
        Start-Sleep -Milliseconds 500
    }
    throw "no result of $id within a minute"
}

function Lift([string]$id) {
    [void](Ask 'POST' "/v1/responses/$id/lift" @{ reason = 'first time on Windows' })
    Results $id 2
}

# The newest result: the outcome, and the agent's own words.
function Newest { $found = @($script:last.results)[-1]; "$($found.outcome), $($found.message)" }

function Step([string]$name, [scriptblock]$work) {
    try { & $work } catch { Tell $name $false $_.Exception.Message }
}

$windows = Get-CimInstance Win32_OperatingSystem
[void]$lines.Add("Riposte agent, first time: $($windows.Caption) $($windows.Version), $(& $program --version)")

Step '1 the program and the service' {
    $service = Get-Service riposte-agent
    Tell '1 the service runs' ($service.Status -eq 'Running') "$($service.Status), starts $($service.StartType)"
}
Step '2 the state is kept to SYSTEM and the administrators' {
    $others = (Get-Acl $StateDir).Access | Where-Object {
        $sid = $_.IdentityReference.Translate([Security.Principal.SecurityIdentifier]).Value
        $sid -notin 'S-1-5-18', 'S-1-5-32-544'
    }
    Tell '2 the state is kept to SYSTEM and the administrators' (-not $others) (($others | ForEach-Object { "$($_.IdentityReference)" }) -join ', ')
}
Step '3 what the agent can do' {
    $actions = & $program actions --json | Out-String
    Tell '3 what the agent can do' ($LASTEXITCODE -eq 0) ($actions -replace '\s+', ' ')
}
Step '4 log-only' {
    $id = Respond 'log-only' '203.0.113.77' $null '1h'
    Tell '4 log-only is applied' ((Newest) -like 'succeeded*') (Newest)
    Lift $id
    Tell '4 log-only is lifted' ((Newest) -like 'succeeded*') (Newest)
}
Step '5 firewall-drop' {
    $id = Respond 'firewall-drop' '203.0.113.77' $null '1h'
    $rules = @(Get-NetFirewallRule -DisplayName 'Riposte firewall-drop 203.0.113.77 *' -ErrorAction SilentlyContinue)
    Tell '5 an address is blocked by two rules' ((Newest) -like 'succeeded*' -and $rules.Count -eq 2) "$(Newest); $($rules.Count) rules"
    Lift $id
    $rules = @(Get-NetFirewallRule -DisplayName 'Riposte firewall-drop 203.0.113.77 *' -ErrorAction SilentlyContinue)
    Tell '5 and by none afterwards' ((Newest) -like 'succeeded*' -and $rules.Count -eq 0) "$(Newest); $($rules.Count) rules"
}
Step '6 the end without the manager' {
    [void](Respond 'firewall-drop' '203.0.113.78' $null '20s')
    Restart-Service riposte-agent
    Start-Sleep -Seconds 30
    $rules = @(Get-NetFirewallRule -DisplayName 'Riposte firewall-drop 203.0.113.78 *' -ErrorAction SilentlyContinue)
    Tell '6 a block ends on time, over a restart of the service' ($rules.Count -eq 0) "$($rules.Count) rules"
}
Step '7 route-null' {
    $id = Respond 'route-null' '203.0.113.79' $null '1h'
    $routes = @(Get-NetRoute -DestinationPrefix '203.0.113.79/32' -ErrorAction SilentlyContinue)
    Tell '7 an address has a route to nowhere' ((Newest) -like 'succeeded*' -and $routes.Count -ge 1) (Newest)
    Lift $id
    $routes = @(Get-NetRoute -DestinationPrefix '203.0.113.79/32' -ErrorAction SilentlyContinue)
    Tell '7 and none afterwards' ($routes.Count -eq 0) (Newest)
}
Step '8 disable-account' {
    $password = ConvertTo-SecureString ([guid]::NewGuid().ToString() + 'aA1!') -AsPlainText -Force
    [void](New-LocalUser 'riposte-test' -Password $password)
    try {
        $id = Respond 'disable-account' @{ kind = 'user'; value = 'riposte-test' } 'end-sessions' '1h'
        Tell '8 an account is disabled' (-not (Get-LocalUser 'riposte-test').Enabled) (Newest)
        Lift $id
        Tell '8 and enabled again' ((Get-LocalUser 'riposte-test').Enabled) (Newest)
    } finally { Remove-LocalUser 'riposte-test' }
}
Step '9 kill-process' {
    $victim = Start-Process notepad -PassThru
    Start-Sleep -Seconds 2
    [void](Respond 'kill-process' @{ kind = 'process'; value = "$($victim.Id)" } 'name=notepad' $null)
    Tell '9 a process is killed' ($victim.HasExited) (Newest)
}
Step '10 quarantine-file' {
    $file = "$env:SystemDrive\riposte-first-time.txt"
    Set-Content $file 'x'
    $before = (Get-Acl $file).Sddl
    $id = Respond 'quarantine-file' @{ kind = 'file'; value = $file } $null '1h'
    Tell '10 a file is taken away' (-not (Test-Path $file)) (Newest)
    Lift $id
    $after = if (Test-Path $file) { (Get-Acl $file).Sddl } else { 'it is not back' }
    Tell '10 and given back with its rights' ($after -eq $before) "$(Newest); $after"
    Remove-Item $file -ErrorAction SilentlyContinue
}
Step '11 the log of events' {
    $events = @(Get-WinEvent -ProviderName riposte-agent -MaxEvents 20 -ErrorAction SilentlyContinue)
    Tell '11 warnings are in the log of events' $true "$($events.Count) events"
}
[void]$lines.Add('not done by this script: 12 isolate-host (docs/windows.md), which ends remote sessions')
Set-Content -Encoding UTF8 $Report $lines
Write-Host "The report is in $Report; please send it back."
if ($lines -match '^FAILED') { exit 1 }
