$ErrorActionPreference = 'Stop'
$target = 'C:\Lab\read me.txt'
New-Item -ItemType Directory -Force -Path (Split-Path -Parent $target) | Out-Null
[IO.File]::WriteAllText($target, 'it''s
')
