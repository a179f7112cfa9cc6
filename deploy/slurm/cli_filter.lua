-- Asks the tightfit planner what a submitted job needs, on the client: in sbatch, srun and salloc.
--
-- Only jobs whose comment begins with "tightfit:" are looked at:
--     sbatch --comment=tightfit:job.json train.sh          the GPU types that hold the job
--     sbatch --comment=tightfit-cpu:job.json train.sh      main memory
-- job.json is a tightfit job file. What the user asked for stays; what is missing is filled in. A planner that
-- is down or slow changes nothing: after CURL_SECONDS the job is submitted as it stands.
--
-- Settings, a line each, in tightfit.conf beside slurm.conf:
--     planner_url=http://head:8080
--     holes=/etc/slurm/tightfit-holes.json                 written by `tightfit slurm-holes`
--     features=yes                                         nodes have a feature called like their GRES type
--     api_key_file=/etc/slurm/tightfit.key                 where the planner wants a key

local CURL_SECONDS = 1

local function read_file(path)
   local file = io.open(path, "r")
   if file == nil then return nil end
   local text = file:read("*a")
   file:close()
   return text
end

local function settings()
   local folder = (os.getenv("SLURM_CONF") or "/etc/slurm/slurm.conf"):match("^(.*)/") or "/etc/slurm"
   local found = {}
   for line in (read_file(folder .. "/tightfit.conf") or ""):gmatch("[^\n]+") do
      local name, value = line:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
      if name ~= nil then found[name] = value end
   end
   return found
end

local function quoted(text)
   return "'" .. text:gsub("'", "'\\''") .. "'"
end

-- Status and body of the planner's answer; status 0 when nothing answers in time.
local function ask(configured, body)
   local name = os.tmpname()
   local file = io.open(name, "w")
   file:write(body)
   file:close()
   local key = configured.api_key_file and read_file(configured.api_key_file)
   local header = ""
   if key ~= nil then header = " --header " .. quoted("authorization: Bearer " .. key:gsub("%s", "")) end
   local command = "curl --silent --max-time " .. CURL_SECONDS .. " --header 'content-type: application/json'" ..
      header .. " --data-binary @" .. quoted(name) .. " --write-out '\\n%{http_code}' " ..
      quoted(configured.planner_url .. "/v1/placements") .. " 2>/dev/null"
   local pipe = io.popen(command, "r")
   local answer = pipe:read("*a") or ""
   pipe:close()
   os.remove(name)
   local text, status = answer:match("^(.*)\n(%d+)%s*$")
   return tonumber(status or 0), text or ""
end

-- The alternatives in Slurm's words: a list of lists of arguments.
local function alternatives(answer)
   local found = {}
   local words = answer:match('"slurm":{"alternatives":(%b[])') or ""
   for alternative in words:sub(2, -2):gmatch("%b[]") do
      local arguments = {}
      for name, value in alternative:gmatch('"%-%-([%w-]+)=(.-)"') do arguments[name] = value end
      table.insert(found, arguments)
   end
   return found
end

-- By features all types at once, where nodes have them; else the quickest type.
local function chosen(found, configured)
   for _, arguments in ipairs(found) do
      if configured.features == "yes" and arguments.constraint ~= nil then return arguments end
   end
   return found[1]
end

local function types_of(found)
   local names = {}
   for _, arguments in ipairs(found) do
      local name = (arguments.gres or ""):match("^gpu:([^:]+):")
      if name ~= nil then table.insert(names, name) end
   end
   return table.concat(names, ",")
end

local function fill(options, arguments)
   for name, value in pairs(arguments) do
      if options[name] == nil or options[name] == "" then options[name] = value end
   end
end

function slurm_cli_setup_defaults(options, early_pass)
   return slurm.SUCCESS
end

function slurm_cli_pre_submit(options, pack_offset)
   local device, path = (options["comment"] or ""):match("^tightfit(%-?%a*):(%S+)")
   if path == nil then return slurm.SUCCESS end
   local configured = settings()
   local job = read_file(path)
   local holes = read_file(configured.holes or "")
   if job == nil then
      slurm.log_error("tightfit: cannot read the job file %s", path)
      return slurm.ERROR
   end
   if configured.planner_url == nil or holes == nil then
      slurm.log_error("tightfit: tightfit.conf names no planner_url or no readable holes; submitted as it stands")
      return slurm.SUCCESS
   end
   local kind = device == "-cpu" and "cpu" or "cuda"
   local body = '{"jobs":[{"name":"job","device":"' .. kind .. '","job":' .. job .. '}],"holes":' .. holes ..
      ',"most_offers":1,"planned_offers":0}'
   local status, answer = ask(configured, body)
   if status == 0 or status >= 500 then
      slurm.log_error("tightfit: no answer from %s within %d s; submitted as it stands",
         configured.planner_url, CURL_SECONDS)
      return slurm.SUCCESS
   end
   if status ~= 200 then
      slurm.log_error("tightfit: %s", answer:match('"detail":%s*"(.-)"[,}]') or ("status " .. status))
      return slurm.ERROR
   end
   local found = alternatives(answer)
   if #found == 0 then
      slurm.log_error("tightfit: no node of this cluster holds the job: its leanest plan needs %s bytes",
         answer:match('"minimum_budget_bytes":(%d+)') or "?")
      return slurm.ERROR
   end
   fill(options, chosen(found, configured))
   local request = tonumber(answer:match('"request_bytes":(%d+),"limit_bytes":%d+,"slurm"') or 0)
   -- For job_submit.lua, which checks without asking anybody.
   options["comment"] = string.format("tightfit%s:%s request_mib=%d types=%s", device, path,
      math.ceil(request / 2 ^ 20), types_of(found))
   return slurm.SUCCESS
end

function slurm_cli_post_submit(offset, job_id, step_id)
   return slurm.SUCCESS
end
